// What README and docs/amp.md show of results of `npm run paper:fashion`, `paper:mixed` and `paper:together`, each with
// `-- --json`. tools/readme-table.mjs puts it there.
import { markdownTable, ranOn } from './markdown.mjs'

const percent = (share) => `${(100 * share).toFixed(2)} %`
const count = (x) => x.toLocaleString('en')
const on = (report) => {
  const { threads } = report.machine
  return ranOn(report, `${threads} ${threads === 1 ? 'thread' : 'threads'}`)
}
const images = ({ training, validation, test }) => [
  `validation (${count(validation)})`,
  `test (${count(test)})`,
  training,
]

export function cnnTable(report) {
  const { parameters, stages, epochs, validation, test, required, epochResults } = report
  const [held, tests, training] = images(report.images)
  const fastest = Math.min(...epochResults.map(({ seconds }) => seconds))
  const head = ['3x3 convolutions', 'parameters', 'epochs', held, tests, 'required']
  const shown = stages.map((stage) => stage.join(', ')).join(' / ')
  const row = [shown, count(parameters), epochs, percent(validation), percent(test), percent(required)]
  return [
    on(report),
    '',
    ...markdownTable(head, [row]),
    '',
    `The fastest epoch of ${count(training)} images took ${fastest.toFixed(1)} s.`,
  ].join('\n')
}

export function mixedTable(report) {
  const [held, tests] = images(report.images)
  const head = ['network', 'parameters', 'precision', 'epochs', held, tests, 's / epoch', 'gradients lost', 'factor']
  const cells = (row) => [
    ...[row.net, count(row.parameters), row.precision, row.epochs, percent(row.validation), percent(row.test)],
    ...[row.secondsPerEpoch.toFixed(2), percent(row.lost), row.factor === null ? '' : count(row.factor)],
  ]
  return [on(report), '', ...markdownTable(head, report.rows.map(cells))].join('\n')
}

export function togetherTable(report) {
  const [held, tests] = images(report.settings.images)
  const { latency } = report.rows[0]
  const times = latency.map(({ batch }) => `ms, batch of ${batch}: best / median`)
  const head = ['model', 'parameters', 'zeros', held, tests, 'bytes', 'compressed', 'smaller', ...times]
  const cells = (row) => [
    ...[row.name, count(row.parameters), percent(row.zeros), percent(row.validation), percent(row.test)],
    ...[count(row.bytes), count(row.compressed), `${(report.rows[0].bytes / row.compressed).toFixed(1)}x`],
    ...row.latency.map(({ best, median }) => `${best.toFixed(3)} / ${median.toFixed(3)}`),
  ]
  const by = report.taughtBy.map(({ temperature, validation }) => `${temperature} (${percent(validation)})`)
  const tried = `The validation set chose among T = ${by.join(', ')}.`
  return [on(report), '', ...markdownTable(head, report.rows.map(cells)), '', tried].join('\n')
}
