/** Reports: one HTML file with curves and tables, which needs nothing but a browser. */
import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { ArgumentError, show } from '../core/errors'
import { checkPath, type PathLike } from './source'
import { writeFileAtomically } from './write-file'

export interface ReportSeries {
  name: string
  /** Ascending. */
  x: readonly number[]
  /** As many as `x`; null and what is not finite leave a gap. */
  y: readonly (number | null)[]
}

export interface ReportCurves {
  title: string
  /** What the horizontal axis counts; default 'step'. */
  x?: string
  /** Default 'linear'. */
  scale?: 'linear' | 'log'
  series: readonly ReportSeries[]
}

export interface ReportTable {
  title: string
  head?: readonly string[]
  rows: readonly (readonly (string | number | boolean | null)[])[]
}

export interface Report {
  title: string
  /** A line below it. */
  subtitle?: string
  curves?: readonly ReportCurves[]
  tables?: readonly ReportTable[]
}

const ENTITIES: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
}
const escapeHtml = (text: string) => text.replace(/[&<>"']/g, (c) => ENTITIES[c] as string)

/** Inside a script element: nothing in it can close the element, or begin a comment. */
const scriptJson = (value: unknown) =>
  JSON.stringify(value).replace(/[<>&\u2028\u2029]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`)

const STYLE = `body{font:15px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:#222}
h1{font-size:1.6rem;margin:0}h2{font-size:1.1rem;margin:2rem 0 .5rem}p{color:#666;margin:.2rem 0}
table{border-collapse:collapse}td,th{padding:.2rem .9rem .2rem 0;text-align:left;border-bottom:1px solid #ddd;vertical-align:top;
white-space:pre-wrap}td.number{text-align:right;font-variant-numeric:tabular-nums}`

/** Draws every figure: runs in the browser, after uPlot. */
const DRAW = `const colours = ['#1f77b4', '#d62728', '#2ca02c', '#9467bd', '#ff7f0e', '#17becf']
const figures = JSON.parse(document.getElementById('figures').textContent)
figures.forEach((figure, i) => {
  const place = document.getElementById('figure-' + i)
  const chart = new uPlot({
    width: place.clientWidth, height: 300,
    scales: { x: { time: false }, y: { distr: figure.log ? 3 : 1 } },
    axes: [{ label: figure.x, size: 44, labelSize: 20 }, { size: 64 }],
    series: [{ label: figure.x }, ...figure.names.map((label, s) => (
      { label, stroke: colours[s % colours.length], width: 2, spanGaps: true, points: { show: figure.columns[0].length < 60 } }))],
  }, figure.columns, place)
  addEventListener('resize', () => chart.setSize({ width: place.clientWidth, height: 300 }))
})`

/** One column of x for all series, as uPlot wants it, and a column of y each. */
function figure(curves: ReportCurves) {
  const log = curves.scale === 'log'
  const known = (y: number | null | undefined) => typeof y === 'number' && Number.isFinite(y) && (!log || y > 0)
  const x = [...new Set(curves.series.flatMap((series) => [...series.x]))].sort((a, b) => a - b)
  const columns = curves.series.map((series) => {
    const at = new Map(series.x.map((x, i) => [x, series.y[i]]))
    return x.map((x) => (known(at.get(x)) ? (at.get(x) as number) : null))
  })
  return { x: curves.x ?? 'step', log, names: curves.series.map(({ name }) => name), columns: [x, ...columns] }
}

function tableHtml({ title, head, rows }: ReportTable): string {
  const cell = (value: string | number | boolean | null) =>
    typeof value === 'number'
      ? `<td class="number">${escapeHtml(Number.isInteger(value) ? String(value) : value.toPrecision(5))}</td>`
      : `<td>${escapeHtml(value === null ? '-' : String(value))}</td>`
  const top = head ? `<tr>${head.map((name) => `<th>${escapeHtml(name)}</th>`).join('')}</tr>\n` : ''
  const body = rows.map((row) => `<tr>${row.map(cell).join('')}</tr>`).join('\n')
  return `<h2>${escapeHtml(title)}</h2>\n<table>\n${top}${body}\n</table>`
}

function checkList(name: string, value: unknown): readonly Record<string, unknown>[] {
  if (value === undefined) return []
  if (!Array.isArray(value) || value.some((item) => typeof item !== 'object' || item === null))
    throw new ArgumentError(`writeReport: ${name} must be an array of objects, got ${show(value)}`)
  return value
}

function checkText(name: string, value: unknown): void {
  if (typeof value !== 'string') throw new ArgumentError(`writeReport: ${name} must be a string, got ${show(value)}`)
}

function checkReport(report: Report): void {
  if (typeof report !== 'object' || report === null)
    throw new ArgumentError(`writeReport: report must be an object, got ${show(report)}`)
  checkText('title', report.title)
  if (report.subtitle !== undefined) checkText('subtitle', report.subtitle)
  for (const [c, curves] of checkList('curves', report.curves).entries()) {
    checkText(`curves[${c}].title`, curves.title)
    if (curves.x !== undefined) checkText(`curves[${c}].x`, curves.x)
    if (curves.scale !== undefined && curves.scale !== 'linear' && curves.scale !== 'log')
      throw new ArgumentError(`writeReport: curves[${c}].scale must be 'linear' or 'log', got ${show(curves.scale)}`)
    for (const [s, series] of checkList(`curves[${c}].series`, curves.series).entries()) {
      const what = `curves[${c}].series[${s}]`
      checkText(`${what}.name`, series.name)
      const { x, y } = series
      const finite = (value: unknown) => Number.isFinite(value)
      if (!Array.isArray(x) || !x.every(finite))
        throw new ArgumentError(`writeReport: ${what}.x must be an array of finite numbers, got ${show(x)}`)
      if (!Array.isArray(y) || y.length !== x.length)
        throw new ArgumentError(`writeReport: ${what}.y must be an array of ${x.length} numbers, got ${show(y)}`)
    }
  }
  for (const [t, table] of checkList('tables', report.tables).entries()) {
    checkText(`tables[${t}].title`, table.title)
    if (!Array.isArray(table.rows) || !table.rows.every(Array.isArray))
      throw new ArgumentError(`writeReport: tables[${t}].rows must be an array of arrays, got ${show(table.rows)}`)
  }
}

/**
 * Writes a report: curves, drawn by uPlot, and tables, in one HTML file that loads nothing from elsewhere. All texts are escaped, and
 * the page's policy lets no other script run than its own. The file appears under its name only when it is whole.
 *
 * @throws ArgumentError for a report that is none; errors of the file system are Node's
 * @example
 * await train.writeReport('report.html', {
 *   title: 'Digits',
 *   curves: [{ title: 'Loss', x: 'epoch', series: [{ name: 'training', x: [1, 2, 3], y: [0.5, 0.3, 0.2] }] }],
 *   tables: [{ title: 'Result', rows: [['accuracy', 0.98]] }],
 * })
 */
export async function writeReport(path: PathLike, report: Report): Promise<void> {
  const target = checkPath('writeReport', path)
  checkReport(report)
  const { title, subtitle, curves = [], tables = [] } = report
  const part = (name: string) => readFile(require.resolve(`uplot/dist/${name}`), 'utf8')
  const [library, css] = await Promise.all([part('uPlot.iife.min.js'), part('uPlot.min.css')])
  const scripts = curves.length > 0 ? [library, DRAW] : []
  const hash = (script: string) => `'sha256-${createHash('sha256').update(script).digest('base64')}'`
  const policy = `default-src 'none'; style-src 'unsafe-inline'; script-src ${scripts.map(hash).join(' ') || "'none'"}`
  const html = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${policy}">
<meta name="viewport" content="width=device-width">
<title>${escapeHtml(title)}</title>
<style>${STYLE}
${css}</style>
</head>
<body>
<h1>${escapeHtml(title)}</h1>
${subtitle === undefined ? '' : `<p>${escapeHtml(subtitle)}</p>`}
${curves.map((c, i) => `<h2>${escapeHtml(c.title)}</h2>\n<div id="figure-${i}"></div>`).join('\n')}
${tables.map(tableHtml).join('\n')}
<script type="application/json" id="figures">${scriptJson(curves.map(figure))}</script>
${scripts.map((script) => `<script>${script}</script>`).join('\n')}
</body>
</html>
`
  await writeFileAtomically(target, [Buffer.from(html)])
}
