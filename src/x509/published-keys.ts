/**
 * Keys whose private half was published: examples of standards and test suites, and trivial ones. Whoever certifies
 * such a key certifies everyone. By SHA-256 of the SubjectPublicKeyInfo; for the many more that are known, among them
 * those of Debian's generator (CVE-2008-0166), give the service a block list (see block-list.ts).
 */
export const isPublishedKey = (sha256Hex: string): boolean => published.has(sha256Hex)

const published: ReadonlyMap<string, string> = new Map([
  ['b2b04340cfaee616ec9c2c62d261b208e54bb197498df52e8cadede23ac0ba5e', 'RFC 9500 2.3 P-256'],
  ['c4c10105a0be0ed4dd3354428dc38a9bfee64da141ce16e75c94eda272f9dd3a', 'RFC 9500 2.3 P-384'],
  ['8fb6bad671cfe698393c453357da61b56d757ab8c0f3fb9c87f2849e63131878', 'RFC 9500 2.1 RSA-2048'],
  ['48f6c3061b4d8c8747e0c2c39a5c41f474b5ee525f5bc324158e498e10655a5f', 'Node.js tests, P-256'],
  ['226acd9b52f5731987d46521bbe02fa88045f9eb0c4a262690022d23cbb5eef2', 'Go crypto/tls example, P-256'],
  ['eda270a7052c1d02ae5f85ba6f6a71038cae232595010596626d66489f9e4270', 'Node.js tests, RSA-2048'],
  [
    '9449eb4873a6a19a803682bcadbdca86e8c54b139e6105c1f9dc00e7b2b997a2',
    'badkeys example, Debian OpenSSL (CVE-2008-0166)',
  ],
  ['a1e9156054e04fac899ae9f275132cdc07a5dbc4ea2c2ad3a1ffc6e0d253681f', 'RFC 8410 10.3, Ed25519'],
  ['06e3fd8fda29bb60ab59557de61edb0aecdb231134be30e75b455f8e1b792fa9', 'RFC 8032 7.1 test 1, Ed25519'],
  ['deb2ded39dc26fce0e6085b6fc34bf6b5941913bbfe2ea614113cff9e004c170', 'RFC 8032 7.1 test 2, Ed25519'],
  ['8d39ba50abe50f77b6bb8ae7b6927aff7ffbeba35ad2837c0e51e82bcbcc60d5', 'RFC 8032 7.1 test 3, Ed25519'],
  ['339e2ff917630507b6a423b5ce084e285d1fa65d93b3e27a6195d3bbebc9ae23', 'all-zero seed, Ed25519'],
  ['a050837d85070582ccf7394b0988847cc312cb88259b894899f6f239cf1791a5', 'seed 00 01 … 1f, Ed25519'],
  ['5cd252fb0ce8932436faf8ccd1040981b89ee4ad6b9fe9e2a2b7e71aacb27cd3', 'private key 1, P-256'],
  ['dc0ce633dbcc913dafafa4b89ac44d8ce683fdfc3f60c8bdf21213b9f2b534ba', 'private key 2, P-256'],
  ['2b985badf1bac8293f6b92e8c0acc1139bc5a5ecbbf97a6271dcf0d4f6c68af6', 'private key 3, P-256'],
  ['29f8fe74f38c49d49810cec736a26732a30bff2e64827b709a1c63340d4f7181', 'private key 1, P-384'],
  ['e04caab525cff38094dc994b28e8873b81fc5c8d1f4ce89413ff8fb31670fa82', 'private key 2, P-384'],
  ['86d5eff39312850996dac2e1bc3297a9fe58aa656947f3c35348e50e6a59ba08', 'private key 3, P-384'],
  ['dcaa139396632a8daba1ba49ceccce0c417786f014698a06221b083d77754bda', 'private key 1, P-521'],
  ['cd0842279982ba7b7d499a22b303400341b50f0e524eb4a8b3379165a8466cbd', 'private key 2, P-521'],
  ['3061bfac92b7cfaf3794b70ad84ab1188bf55610fa61ddc5996e937b1ceac2e7', 'private key 3, P-521'],
  ['5a7a78cca4a0f420d9bc62bb669c3c2759e39f723d3ae10dcbe0f0815a07ecd4', 'RFC 6979 A.2.5, P-256'],
  ['2f95601fa82060b909bfc6b979dbd303d34d34e0afb27ea496beac362f242a4b', 'RFC 6979 A.2.6, P-384'],
  ['2fb6d46385242ea4ad431f7175e7014eb74a5fc60f65b50ca54cc23c5b08de38', 'RFC 6979 A.2.7, P-521'],
  ['2bd1bb0c44a897c30a7aa0991cde38d8062fe441de50da0f46825344f602e827', 'RFC 7515 A.3, P-256'],
  ['51b944cdfa544d4c3273aa6bf350625a7dd53bbb6a71723274f538b19a207760', 'RFC 7517 A.2, P-256'],
  ['837832708c5236d951581f1fddf2b79991b3424a0486d16da1ddad0fd69701be', 'RFC 9881 C.1, seed 00 01 … 1f, ML-DSA-44'],
  ['b8b62131bfbe84433efb2273d7f5b87f7a22854a2cfd366fc2aead86d837c52d', 'RFC 9881 C.1, seed 00 01 … 1f, ML-DSA-65'],
  ['07e57c4f14dbad1267f621ec3777b4e2e6c4fbc4c22fbb87510ff8e0b3c6a642', 'RFC 9881 C.1, seed 00 01 … 1f, ML-DSA-87'],
])
