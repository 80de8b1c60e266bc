/** Thrown where a case asks for something that kerf does not have or does otherwise on purpose: the reason, in words. */
export class Skip extends Error {}
