/** The wall's clock of a process alone; time goes by as it does, and TLS judges certificates by the machine's. */

/** For the environment of a Node whose clock is ahead of ours by so many milliseconds, or behind. */
export const shiftedBy = (ms: number): { readonly NODE_OPTIONS: string } => {
  const script = `
    const Ours = Date
    globalThis.Date = class extends Ours {
      constructor(...args) { args.length > 0 ? super(...args) : super(Ours.now() + ${ms}) }
      static now() { return Ours.now() + ${ms} }
    }`
  return { NODE_OPTIONS: `--import=data:text/javascript,${encodeURIComponent(script)}` }
}
