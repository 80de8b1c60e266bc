// What README and docs/ show of a result of `npm run demo:prune -- --json`: the table of rows, and the curve of lottery
// tickets as an SVG. tools/readme-table.mjs puts them where they belong.
import { markdownTable, ranOn } from './markdown.mjs'

const percent = (share, places = 2) => `${(100 * share).toFixed(places)} %`
const mean = (values) => values.reduce((sum, x) => sum + x, 0) / values.length
/** Shares of the weights where Frankle and Carbin found the best tickets, and the last as good as the dense network. */
const PUBLISHED = [0.135, 0.036]
const signed = (points) => (points > 0 ? '+' : '') + (points.toFixed(2) === '-0.00' ? '0.00' : points.toFixed(2))
/** The mean, and what it is the mean of. */
const points = ({ difference, differences }) =>
  signed(difference) + (differences.length > 1 ? ` (${differences.map(signed).join(' ')})` : '')

export function table(report) {
  const { rows, lottery } = report
  const head = ['model', 'test accuracy', 'points', 'zeros', 'parameters kept', 'bytes', 'smaller', 'epochs']
  const cells = (row) => [
    ...[row.name, percent(row.accuracy), row.epochs === 0 ? '' : points(row)],
    ...[percent(row.zeros / row.weights), row.kept.toLocaleString('en'), row.bytes.toLocaleString('en')],
    ...[`${row.smaller.toFixed(1)}x`, row.epochs],
  ]
  const [all] = lottery.points
  const best = lottery.points.reduce((a, b) => (mean(b.ticket.test) > mean(a.ticket.test) ? b : a))
  const enough = lottery.points.filter(({ ticket }) => mean(ticket.test) >= mean(all.ticket.test)).at(-1)
  const near = (left) => lottery.points.reduce((a, b) => (Math.abs(b.left - left) < Math.abs(a.left - left) ? b : a))
  const published = PUBLISHED.map(near).filter((point, i, list) => list.indexOf(point) === i)
  const both = ({ left, ticket, reinit }) =>
    `${percent(mean(ticket.test))} against ${percent(mean(reinit.test))} at ${percent(left, 1)}`
  return [
    ranOn(report),
    '',
    ...markdownTable(head, rows.map(cells)),
    '',
    `[Lottery tickets](docs/prune.md#lottery-tickets), mean of ${lottery.trials} starts: ${percent(mean(all.ticket.test))} with all weights, best ${percent(mean(best.ticket.test))} with`,
    `${percent(best.left, 1)} of them, not below all down to ${percent(enough.left, 1)}. Tickets against the same masks on other random weights:`,
    `${published.map(both).join('; ')}.`,
  ].join('\n')
}

const WIDTH = 720
const HEIGHT = 400
const FRAME = { left: 70, right: 20, top: 50, bottom: 60 }

const KINDS = [
  { key: 'ticket', name: 'winning ticket', colour: '#0b62a8', dash: '' },
  { key: 'reinit', name: 'same masks, other random start', colour: '#c4511d', dash: '6 4' },
]

/** Mean test accuracy over the share of weights left, which falls to the right, a logarithmic axis; a band from least to most. */
export function curve({ lottery, date, machine }) {
  const { points, trials, epochs } = lottery
  const all = points.flatMap(({ ticket, reinit }) => [...ticket.test, ...reinit.test]).map((x) => 100 * x)
  const [low, high] = [Math.floor(Math.min(...all) * 2) / 2, Math.ceil(Math.max(...all) * 2) / 2]
  const [first, last] = [points[0].left, points.at(-1).left].map(Math.log)
  const across = WIDTH - FRAME.left - FRAME.right
  const x = (left) => (FRAME.left + (across * (first - Math.log(left))) / (first - last)).toFixed(1)
  const y = (accuracy) =>
    (HEIGHT - FRAME.bottom - ((HEIGHT - FRAME.top - FRAME.bottom) * (100 * accuracy - low)) / (high - low)).toFixed(1)
  const at = (value) => (point) => `${x(point.left)},${y(value(point))}`
  const text = (x, y, anchor, words) => `<text x="${x}" y="${y}" text-anchor="${anchor}">${words}</text>`

  const lines = []
  const { bottom, left, right, top } = { ...FRAME, bottom: HEIGHT - FRAME.bottom, right: WIDTH - FRAME.right }
  for (let a = low; a <= high + 1e-9; a += 0.5) {
    lines.push(`<path class="grid" d="M${left} ${y(a / 100)}H${right}"/>`)
    lines.push(text(left - 8, Number(y(a / 100)) + 4, 'end', `${a.toFixed(1)} %`))
  }
  for (const [i, point] of points.entries()) {
    if (i % 2 === 1) continue
    lines.push(`<path class="grid" d="M${x(point.left)} ${top}V${bottom}"/>`)
    lines.push(text(x(point.left), bottom + 18, 'middle', (100 * point.left).toFixed(1)))
  }
  for (const { key, colour, dash } of KINDS) {
    const most = points.map(at((p) => Math.max(...p[key].test)))
    const least = points.map(at((p) => Math.min(...p[key].test))).reverse()
    lines.push(`<polygon points="${[...most, ...least].join(' ')}" fill="${colour}" opacity="0.15"/>`)
    const means = points.map(at((p) => mean(p[key].test)))
    lines.push(
      `<polyline points="${means.join(' ')}" fill="none" stroke="${colour}" stroke-width="2"${dash && ` stroke-dasharray="${dash}"`}/>`,
    )
    for (const point of means) {
      const [cx, cy] = point.split(',')
      lines.push(`<circle cx="${cx}" cy="${cy}" r="2.5" fill="${colour}"/>`)
    }
  }
  for (const [i, { name, colour, dash }] of KINDS.entries()) {
    const row = bottom - 34 + 18 * i
    lines.push(
      `<path d="M${left + 14} ${row}h30" stroke="${colour}" stroke-width="2"${dash && ` stroke-dasharray="${dash}"`}/>`,
    )
    lines.push(text(left + 52, row + 4, 'start', name))
  }
  const title = 'Lottery tickets: LeNet-300-100 on MNIST'
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" width="${WIDTH}" height="${HEIGHT}" role="img" aria-label="${title}">`,
    `<title>${title}</title>`,
    '<style>text{font:12px sans-serif;fill:#222}.grid{stroke:#ddd;fill:none}</style>',
    `<rect width="${WIDTH}" height="${HEIGHT}" fill="#fff"/>`,
    `<text x="${left}" y="22" style="font-size:15px;font-weight:bold">${title}</text>`,
    text(left, 40, 'start', `test accuracy, mean of ${trials} starts, band from least to most; ${epochs} epochs each`),
    ...lines,
    text((left + right) / 2, bottom + 38, 'middle', 'weights left, % (logarithmic)'),
    text(right, HEIGHT - 6, 'end', `${machine.cpu}, ${date.slice(0, 10)}`),
    '</svg>',
    '',
  ].join('\n')
}
