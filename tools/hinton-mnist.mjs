// What README shows of a result of `npm run paper:hinton -- --json`: a row a model. tools/readme-table.mjs puts it there.
const PUBLISHED = { teacher: 'teacher', 'plain student': 'plain', 20: 'distilled' }

export function table(report) {
  const { machine: m, rows, published, closedAt20 } = report
  const head = ['model', 'units', 'parameters', 'T', 'validation errors of 6,000', 'test errors of 10,000', 'published']
  const of = ({ name, temperature }) => published[PUBLISHED[temperature ?? name]] ?? ''
  const cells = (row) => [
    ...[row.name, `2 x ${row.units}`, row.parameters.toLocaleString('en'), row.temperature ?? ''],
    ...[row.validationErrors, row.testErrors, of(row)],
  ]
  const theirs = (published.plain - published.distilled) / (published.plain - published.teacher)
  return [
    `${m.cpu}, ${m.cores} cores, ${m.platform}, node ${m.node}, kernels ${m.target}, ${m.threads} ${m.threads === 1 ? 'thread' : 'threads'}, ${report.date.slice(0, 10)}; ${report.seconds} s in all, ${report.passed ? 'nothing required was missed' : `missed: ${report.failures.join('; ')}`}.`,
    '',
    `| ${head.join(' | ')} |`,
    `|${'---|'.repeat(head.length)}`,
    ...rows.map((row) => `| ${cells(row).join(' | ')} |`),
    '',
    `T = 20 closes ${(100 * closedAt20).toFixed(0)} % of the distance between plain student and teacher, published ${(100 * theirs).toFixed(0)} %. By the validation set one would take`,
    `T = ${report.chosenTemperature}.`,
  ].join('\n')
}
