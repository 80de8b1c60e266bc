// What the tests of training share: a small problem, a model with everything random in it, and its bits.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { amp, crossEntropy, data, manualSeed, nn, optim, type Tensor, train } from 'kerf'
import type { Test } from 'tap'
import { asLabels, asTensor, labelsOf, logits } from '../distill/oracle'

export const [N, IN, C] = [50, 12, 4]

export const set = () => new data.TensorDataset(asTensor(logits(1, N, IN)), asLabels(labelsOf(2, N, C)))

export const batches = (options: data.LoaderOptions = {}) =>
  data.loader(set(), { batchSize: 8, shuffle: true, seed: 3, ...options })

export function net(seed = 1): nn.Module {
  manualSeed(seed)
  return new nn.Sequential(new nn.Linear(IN, 16), new nn.ReLU(), new nn.Dropout(0.2), new nn.Linear(16, C))
}

export const bits = (model: nn.Module) =>
  Object.entries(model.stateDict()).map(([name, value]) => [name, [...(value.dataSync() as Float32Array)]])

/** Model, optimizer, schedule, scaler and averages, and a trainer of them. */
export function everything(options: Partial<train.TrainerOptions> = {}) {
  const model = net()
  const optimizer = new optim.AdamW(model.parameters(), { lr: 1e-2 })
  const ema = new train.Ema(model, { decay: 0.9, warmup: true })
  const trainer = new train.Trainer({
    ...{ model, optimizer, ema, loss: crossEntropy, metrics: { accuracy: train.accuracy } },
    ...{ schedule: new optim.CosineAnnealingLR(optimizer, 40), scaler: new amp.GradScaler({ growthInterval: 5 }) },
    ...{ autocast: 'float16', clipNorm: 1, accumulate: 2, seed: 7, progress: false },
    ...{ earlyStopping: { metric: 'loss', patience: 100 } },
    ...options,
  })
  return { model, optimizer, ema, trainer }
}

export const averages = (ema: train.Ema) =>
  Object.entries(ema.stateDict().averages).map(([name, value]: [string, Tensor]) => [
    name,
    [...(value.dataSync() as Float32Array)],
  ])

/** A folder that goes with the test. */
export function folder(t: Test): string {
  const made = mkdtempSync(path.join(tmpdir(), 'kerf-train-'))
  t.teardown(() => rmSync(made, { recursive: true, force: true }))
  return made
}
