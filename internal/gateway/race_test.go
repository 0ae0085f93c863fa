//go:build race

package gateway

// raceDetector is at work: memory and time are not what they are without it.
const raceDetector = true
