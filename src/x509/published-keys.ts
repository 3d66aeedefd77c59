const published = new Set<string>()
export const isPublishedKey = (sha256Hex: string): boolean => published.has(sha256Hex)
