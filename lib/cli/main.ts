#!/usr/bin/env node
/** `kerf`: one clear line for an error; exit code 1, or 2 when the command line itself is wrong. */
import { Command, CommanderError } from 'commander'
import { parseDTypes, parseMilliseconds, parseShapes, parseThreads } from './arguments'

async function main(): Promise<void> {
  const program = new Command('kerf')
  program.description('Makes deep-learning models smaller and faster: what runs on this machine, and how fast.')
  // What follows loads the addon only where it is needed, so that the doctor can speak when it is missing.
  program.exitOverride().showHelpAfterError('(kerf --help shows the commands)')
  const { version } = require('../../package.json') as { version: string }
  program.version(version)

  program
    .command('doctor')
    .description('CPU features, chosen kernels and why, threads, CUDA, and what to do if something is missing')
    .option('--json', 'print one JSON document and nothing else')
    .action(async (options: { json?: boolean }) => {
      const { doctor } = await import('./doctor.js')
      process.exitCode = doctor(options.json === true)
    })

  program
    .command('bench')
    .description("measure the kernels against this machine's own peak, and against a peer")
    .argument('[suites...]', 'matmul, rows, edge, conv, int8, sparse, ops, loop, train; default: all')
    .option(
      '--shapes <list>',
      'products m x n x k, such as 1024,1x4096x4096; float32 (int8 for the suite int8) unless --dtype says otherwise',
      parseShapes,
    )
    .option('--dtype <list>', 'float32, float16, bfloat16; int8 and int4 in the suite int8', parseDTypes)
    .option('--threads <list>', 'such as 1 or 1,2; default: one and all', parseThreads)
    .option('--vs <peer>', 'interleave a peer: onnxruntime-node')
    .option('--budget <ms>', 'milliseconds for each contender of a row', parseMilliseconds, 600)
    .option('--json', 'print one JSON document and nothing else')
    .action(async (suites: string[], options) => {
      const { bench } = await import('./bench.js')
      await bench(suites, options)
    })

  await program.parseAsync()
}

main().catch((error: unknown) => {
  if (error instanceof CommanderError) {
    // commander has printed its line; help and version are no errors
    process.exitCode = error.exitCode === 0 ? 0 : 2
    return
  }
  const message = error instanceof Error ? error.message : String(error)
  const usage = (error as { usage?: boolean } | null)?.usage === true
  process.stderr.write(`kerf: ${message.replace(/^kerf: /, '')}\n`)
  process.exitCode = usage ? 2 : 1
})
