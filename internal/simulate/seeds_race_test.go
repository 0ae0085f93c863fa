//go:build race

package simulate

// The race detector needs fewer: nothing here runs at the same time.
const defaultSeeds = 4
