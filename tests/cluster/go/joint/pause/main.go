// The process that holds a pod's namespaces: it waits for the signal that ends the pod.
package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM, syscall.SIGINT)
	// In a pod with a shared process namespace this is process 1; an ignored SIGCHLD makes the kernel reap children.
	signal.Ignore(syscall.SIGCHLD)
	<-end
}
