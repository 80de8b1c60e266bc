/** Rows of cells as lines of text: the first `left` columns begin at the left, the others end at the right. */
export function textTable(rows: readonly (readonly string[])[], left: number): string {
  const widths = rows[0]?.map((_, column) => Math.max(...rows.map((row) => (row[column] as string).length))) ?? []
  const pad = (cell: string, column: number) =>
    column < left ? cell.padEnd(widths[column] as number) : cell.padStart(widths[column] as number)
  return rows.map((row) => row.map(pad).join('  ').trimEnd()).join('\n')
}

/** A part of a whole as text: 0.5 is '50.0 %'. */
export const showPercent = (part: number): string => `${(100 * part).toFixed(1)} %`
