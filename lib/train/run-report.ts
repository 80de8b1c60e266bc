/** A training run as a report. */

import { Loader } from '../data/loader'
import { type Report, writeReport } from '../io/report'
import type { PathLike } from '../io/source'
import type { Curve, EpochResult, Scores } from './history'
import type { Plan } from './options'

export type Configuration = [name: string, value: string | number][]

/** What a run was told, for people. */
export function configuration(plan: Plan, data: unknown, epochs: number): Configuration {
  const { model, optimizer, schedule, accumulate, clipNorm, ema, early } = plan
  const parameters = model.parameters().reduce((total, parameter) => total + parameter.size, 0)
  const groups = optimizer.paramGroups.map(({ params, ...options }) => JSON.stringify(options))
  return [
    ['model', String(model)],
    ['parameters', parameters],
    ['optimizer', `${optimizer.constructor.name} ${groups.join(' ')}`],
    ['schedule', schedule ? `${schedule.constructor.name}, every ${plan.scheduleEvery}` : 'none'],
    ['precision', plan.autocast ?? 'of the weights'],
    ['scaler', plan.scaler ? JSON.stringify(plan.scaler.stateDict()) : 'none'],
    ['batch size', data instanceof Loader ? data.batchSize : 'of the data'],
    ['batches a step', accumulate],
    ['gradient norm', clipNorm ?? 'not clipped'],
    ['ema', ema ? `decay ${ema.decay}${ema.warmup ? ', warmup' : ''}` : 'none'],
    ['early stopping', early ? `${early.metric} (${early.mode}), patience ${early.patience}` : 'none'],
    ['seed', plan.seed ?? 'none'],
    ['epochs', epochs],
  ]
}

function curvesOf(history: readonly EpochResult[], name: string) {
  const x = history.map(({ epoch }) => epoch + 1)
  const series = [{ name: 'training', x, y: history.map(({ training }) => training[name] as number) }]
  if (history.some(({ validation }) => validation !== null))
    series.push({ name: 'validation', x, y: history.map(({ validation }) => validation?.[name] ?? Number.NaN) })
  return { title: name, x: 'epoch', series }
}

export async function runReport(
  path: PathLike,
  about: Configuration,
  history: readonly EpochResult[],
  curve: Curve,
): Promise<void> {
  const names = Object.keys(history[0]?.training ?? {})
  const cells = (scores: Scores | null) => names.map((name) => scores?.[name] ?? null)
  const rows = history.map((line) => [
    ...[line.epoch + 1, line.step, line.lr],
    ...[...cells(line.training), ...cells(line.validation), line.seconds],
  ])
  const report: Report = {
    title: 'Training',
    curves: [
      ...names.map((name) => curvesOf(history, name)),
      { title: 'loss of each step', x: 'step', series: [{ name: 'training', x: curve.steps, y: curve.losses }] },
    ],
    tables: [
      {
        title: 'Epochs',
        head: ['epoch', 'steps', 'lr', ...names, ...names.map((name) => `validation ${name}`), 'seconds'],
        rows,
      },
      { title: 'Configuration', rows: about },
    ],
  }
  await writeReport(path, report)
}
