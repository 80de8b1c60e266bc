// What README shows of a result of `npm run paper:hinton -- --json`: a row a model. tools/readme-table.mjs puts it there.
import { markdownTable, ranOn } from './markdown.mjs'

const PUBLISHED = { teacher: 'teacher', 'plain student': 'plain', 20: 'distilled' }

export function table(report) {
  const { rows, published, closedAt20 } = report
  const { threads } = report.machine
  const head = ['model', 'units', 'parameters', 'T', 'validation errors of 6,000', 'test errors of 10,000', 'published']
  const of = ({ name, temperature }) => published[PUBLISHED[temperature ?? name]] ?? ''
  const cells = (row) => [
    ...[row.name, `2 x ${row.units}`, row.parameters.toLocaleString('en'), row.temperature ?? ''],
    ...[row.validationErrors, row.testErrors, of(row)],
  ]
  const theirs = (published.plain - published.distilled) / (published.plain - published.teacher)
  return [
    ranOn(report, `${threads} ${threads === 1 ? 'thread' : 'threads'}`),
    '',
    ...markdownTable(head, rows.map(cells)),
    '',
    `T = 20 closes ${(100 * closedAt20).toFixed(0)} % of the distance between plain student and teacher, published ${(100 * theirs).toFixed(0)} %. By the validation set one would take`,
    `T = ${report.chosenTemperature}.`,
  ].join('\n')
}
