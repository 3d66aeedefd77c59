export const parsePem = (_text: string | Buffer, _label: string): Buffer => {
  throw new Error('soon')
}
export const encodePem = (label: string, der: Buffer): string => {
  const lines = der.toString('base64').replaceAll(/.{64}(?=.)/g, '$&\n')
  return `-----BEGIN ${label}-----\n${lines}\n-----END ${label}-----\n`
}
