export const pkcs11Binary: string
export const buildPkcs11: (compiler: string) => string | undefined
