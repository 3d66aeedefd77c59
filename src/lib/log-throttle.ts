/** What goes wrong again and again is told at once where the reason is another, and else now and then while it lasts. */
export interface Complaint {
  /** Calls `say`, or not. */
  tell(reason: string, say: () => void): void
  /** It is well; whether it was not. */
  end(): boolean
}

export const openComplaint = (now: () => number = () => performance.now()): Complaint => {
  let told: { readonly reason: string; readonly at: number } | undefined
  return {
    tell: (reason, say) => {
      if (told?.reason === reason && now() - told.at < remindMs) return
      told = { reason, at: now() }
      say()
    },
    end: () => {
      const wasTold = told !== undefined
      told = undefined
      return wasTold
    },
  }
}

const remindMs = 60_000
