/** What the layers inside a model answer, seen while it runs as it is. */
import { ArgumentError, show } from '../core/errors'
import { listen } from '../nn/listen'
import { checkModel } from '../nn/model'
import type { AnyModule } from '../nn/module'
import { Tensor } from '../tensor/tensor'

/**
 * Outputs of modules inside a model. Until `release()`, each forward() of a module at one of the paths leaves its output
 * here; of a module that is called more than once, the last. The tensors are those of the run itself, with their place on
 * the tape, and a scope() around the run disposes them.
 */
export class Capture {
  readonly #outputs = new Map<string, Tensor>()
  readonly #watched: (() => void)[] = []

  /** @internal Made by capture(). */
  constructor(model: AnyModule, paths: readonly string[]) {
    const modules = paths.map((path) => [path, model.getModule(path)] as const)
    for (const [path, module] of modules) {
      const take = (output: unknown) => {
        if (!(output instanceof Tensor))
          throw new ArgumentError(`capture: the module at '${path}' must answer a tensor, got ${show(output)}`)
        this.#outputs.set(path, output)
      }
      this.#watched.push(listen(module, take))
    }
  }

  /**
   * The latest output of the module at a path.
   *
   * @throws ArgumentError when it is not captured, or has not run since the last clear()
   */
  output(path: string): Tensor {
    const output = this.#outputs.get(path)
    if (!output) throw new ArgumentError(`capture: the module at ${show(path)} is not captured or has not run`)
    return output
  }

  /** Forgets the outputs. */
  clear(): void {
    this.#outputs.clear()
  }

  /** The model is as before. Calling it twice is fine. */
  release(): void {
    for (const stop of this.#watched.splice(0)) stop()
    this.clear()
  }

  [Symbol.dispose](): void {
    this.release()
  }
}

/**
 * Captures what modules inside a model answer, from now until `release()`.
 *
 * @param paths as namedModules() has them, 'encoder.0'; '' is the model itself
 * @throws ArgumentError when there is no module at a path
 * @example
 * using features = distill.capture(model, ['hidden'])
 * const logits = model.forward(x)
 * features.output('hidden')
 */
export function capture(model: AnyModule, paths: readonly string[]): Capture {
  checkModel('capture', model)
  if (!Array.isArray(paths) || !paths.every((path) => typeof path === 'string'))
    throw new ArgumentError(`capture: paths must be an array of strings, got ${show(paths)}`)
  return new Capture(model, paths)
}
