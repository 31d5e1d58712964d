package main

import (
	"os"
	"time"
)

// endWithEngine ends this process when the engine that started it is gone: one that was killed
// tells nobody, and its plugins would keep connections and memory for ever.
func endWithEngine(engine int) {
	for os.Getppid() == engine {
		time.Sleep(500 * time.Millisecond)
	}
	os.Exit(1)
}
