/** What the listeners take, in octets, characters and milliseconds. docs/api.md tells clients. */
import { constants } from 'node:crypto'

/** Octets of a body; a request of ML-DSA-87 with 100 names takes a quarter of it. */
export const bodyLimit = 64 * 1024
/** Octets of an OCSP request: sixteen certificates, and a nonce. */
export const ocspBodyLimit = 4 * 1024
/** A thousand requests of 4 KiB. */
export const batchBodyLimit = 4 * 1024 * 1024
/** Requests in a batch. */
export const batchItems = 1_000
/** Octets of batches that are under way at once, of one principal and of all. */
export const batchRoom = { what: 'batches', ofOne: 4 * batchBodyLimit, ofAll: 16 * batchBodyLimit }
/** Octets of answers to batches that are under way at once; a thousand certificates of P-256 take three MiB. */
export const batchAnswerRoom = { what: 'answers to batches', ofOne: 32 * 1024 * 1024, ofAll: 128 * 1024 * 1024 }
/** Octets of pages that are under way at once; the largest page takes 25 MiB. */
export const pageRoom = { what: 'pages', ofOne: 32 * 1024 * 1024, ofAll: 128 * 1024 * 1024 }
/** Octets of tiles that are under way at once to anybody, three quarters to one address as of sockets; a bundle takes 16 MiB at most. */
export const publicTileRoom = { what: 'tiles', ofOne: 96 * 1024 * 1024, ofAll: 128 * 1024 * 1024 }
/** Octets of the API's description that are under way at once to anybody: some dozens of it to one address. */
export const descriptionRoom = { what: 'descriptions', ofOne: 16 * 1024 * 1024, ofAll: 64 * 1024 * 1024 }
export const maxHeaderSize = 16 * 1024
/** Characters of one parameter in a path: a principal's 128, each escaped. */
export const maxParamLength = 384
/** Milliseconds for a whole request to arrive. */
export const requestTimeout = 10_000
/**
 * Of HTTPS: also of a context that is renewed, which forgets what the old one was told. Node lets clients of TLS 1.2 begin anew on
 * their connection, three times in ten minutes, and they would show as long a chain each time, which nobody counts.
 */
export const tlsBounds = {
  minVersion: 'TLSv1.2',
  honorCipherOrder: true,
  sessionTimeout: 300,
  secureOptions: constants.SSL_OP_NO_RENEGOTIATION,
} as const
/** Milliseconds without a byte either way, within a request; more than until 408, which is told within two seconds of its time. */
export const idleTimeout = requestTimeout + 3_000
/** Milliseconds until an answer is given up; the issuance may still end, and is found again by its Idempotency-Key. */
export const handlerTimeout = 8_000
/** Milliseconds until it is given up to find out who asks, and how much of it. */
export const admissionTimeout = 4_000
/**
 * Milliseconds from when a listener is to stop until what is still being sent is cut off: longer than any answer is waited for, and
 * shorter than a process has to end in.
 */
export const stopTimeout = handlerTimeout + 2_000
/** Milliseconds for a batch: a thousand items at the pace of a slow HSM. */
export const batchTimeout = 60_000
/** Milliseconds after which a batch begins no further item; what is under way then still has its own deadline. */
export const batchPatience = batchTimeout - handlerTimeout - 2_000
/** Milliseconds. Together with the two seconds that a token is remembered, this is how long a revoked one may go on. */
export const trustMs = 1_000
export const batchPath = '/v1/certificates/batch'
