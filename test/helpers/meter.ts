import type { Meter } from '../../src/ca/meter.ts'

export const silentMeter: Meter = {
  laps: () => () => {},
  issued: () => {},
  refused: () => {},
  limited: () => {},
  batch: () => {},
  keyOperation: () => {},
}
