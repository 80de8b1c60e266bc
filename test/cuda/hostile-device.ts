/**
 * Runs in a process of its own (hostile.test.ts): calls of the emulated device that are nearly right. Prints a line for every right call
 * that fails after them, then `survived <calls>`.
 */
import { device } from 'kerf'
import { changedWeights, nearlyRight } from '../native/hostile-raw'
import { callsMade } from '../native/hostile-tools'

device('cuda') // opens it
nearlyRight('cuda', 200)
changedWeights('cuda', 400)
console.log(`survived ${callsMade()}`)
