// Command genstream is the whole system in one binary: the server in its roles,
// and the client of a running one. `genstream help` lists its verbs.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/genstream/genstream/events/fault"
)

// version is what the binary calls itself.
const version = "0.1.0"

// faultVariable has the program break on purpose, for tests: package fault.
const faultVariable = "GENSTREAM_FAULT"

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// run is main but for the exit and the terminal, so that tests can be the program.
func run(args []string, out, errs io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := fault.Arm(os.Getenv(faultVariable), errs); err != nil {
		fmt.Fprintln(errs, "genstream:", err)
		return 1
	}
	root := root()
	root.SetArgs(args)
	root.SetOut(out)
	root.SetErr(errs)
	err := root.ExecuteContext(ctx)
	var exit exitCode
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return int(exit)
	}
	fmt.Fprintln(errs, "genstream:", err)
	return 1
}

// exitCode is an exit whose reason was already told.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit %d", int(e)) }

// Exit codes of run, beside 0 (all outputs) and 1 (an error).
const (
	exitSome    exitCode = 3 // some outputs failed
	exitNone    exitCode = 4 // all did
	exitTimeout exitCode = 5 // not completed in the time given
)

func root() *cobra.Command {
	c := &cobra.Command{
		Use:           "genstream",
		Short:         "event-sourced backend for AI media generation over NATS JetStream",
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	c.AddGroup(&cobra.Group{ID: "server", Title: "Server:"}, &cobra.Group{ID: "client", Title: "Client of a running server:"})
	c.AddCommand(
		demoCommand(), upCommand(), serveCommand(), verifyCommand(), gcCommand(), doctorCommand(), rebuildCommand(), benchCommand(), proveCommand(),
		runCommand(), lsCommand(), showCommand(), eventsCommand(), rescueCommand(),
	)
	return c
}
