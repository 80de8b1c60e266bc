// What the tables of README have in common.

/** Lines of a table. */
export const markdownTable = (head, rows) => [
  `| ${head.join(' | ')} |`,
  `|${'---|'.repeat(head.length)}`,
  ...rows.map((row) => `| ${row.join(' | ')} |`),
]

/** What a job ran on, and what came of it; `also` stands behind the kernels. */
export function ranOn({ machine: m, date, seconds, passed, failures }, ...also) {
  const where = [m.cpu, `${m.cores} cores`, m.platform, `node ${m.node}`, `kernels ${m.target}`, ...also]
  const missed = passed ? 'nothing required was missed' : `missed: ${failures.join('; ')}`
  return `${where.join(', ')}, ${date.slice(0, 10)}; ${seconds} s in all, ${missed}.`
}
