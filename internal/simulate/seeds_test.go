//go:build !race

package simulate

const defaultSeeds = 60
