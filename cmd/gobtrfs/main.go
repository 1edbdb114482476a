// Command gobtrfs makes, reads, changes, snapshots and drops snapshots on Btrfs
// volumes in user space: image files, block devices and partitions of disk
// images. Verbs and options follow the commands btrfs and mkfs.btrfs.
//
// Exit status: 0 done; 1 failed, or a check found errors; 2 wrong use.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
)

// version is the program's version.
const version = "0.1.0"

const (
	exitFailed = 1
	exitUsage  = 2
)

func main() {
	if os.Getenv("GOGC") == "" {
		// What fills the memory are blocks, in which there is nothing to search: collecting is cheap, and memory that is touched for the first time is not.
		debug.SetGCPercent(50)
	}
	hugePages()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	context.AfterFunc(ctx, stop) // a second ^C ends the program at once; the last commit stays
	code := run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

// run is the whole program; it returns the exit status.
func run(ctx context.Context, args []string) int {
	root := rootCommand()
	root.SetArgs(args)
	out := &standardOutput{file: os.Stdout}
	root.SetOut(out)
	cmd, err := root.ExecuteContextC(ctx)
	err = out.checked(strings.TrimPrefix(cmd.CommandPath(), "gobtrfs "), err)
	if err == nil {
		return 0
	}
	var silent silentError
	if errors.As(err, &silent) {
		return int(silent)
	}
	var usage usageError
	if errors.As(err, &usage) || isCobraUsage(err) {
		fmt.Fprintln(os.Stderr, "gobtrfs:", err)
		fmt.Fprintln(os.Stderr, "Try 'gobtrfs help'.")
		return exitUsage
	}
	if errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "gobtrfs: interrupted: what was committed stays; run the command again to carry on")
		return exitFailed
	}
	fmt.Fprintln(os.Stderr, plainText("gobtrfs "+err.Error()))
	return exitFailed
}

// usageError is wrong use of the command.
type usageError struct{ msg string }

func (e usageError) Error() string { return e.msg }

func usagef(format string, args ...any) error { return usageError{fmt.Sprintf(format, args...)} }

// silentError ends the program with a status; everything was said already.
type silentError int

func (e silentError) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// isCobraUsage tells the errors that cobra makes for unknown commands and
// wrong operands; it has no types for them.
func isCobraUsage(err error) bool {
	m := err.Error()
	for _, s := range []string{"unknown command", "unknown flag", "unknown shorthand", "accepts ", "requires at least", "invalid argument", "flag needs an argument", "required flag"} {
		if strings.HasPrefix(m, s) {
			return true
		}
	}
	return false
}

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "gobtrfs",
		Short:         "Btrfs in user space",
		Long:          "gobtrfs makes, reads, changes, snapshots and drops snapshots on Btrfs volumes\nwithout root and without the kernel's btrfs.",
		Version:       version,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			cmd.SetOut(os.Stderr)
			cmd.Help()
			return silentError(exitUsage)
		},
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err.Error()} })
	root.CompletionOptions.HiddenDefaultCmd = false
	root.AddCommand(
		tourCommand(), mkfsCommand(),
		lsCommand(), catCommand(), getCommand(), putCommand(), rmCommand(), mkdirCommand(), mvCommand(), lnCommand(), statCommand(),
		subvolumeCommand(), filesystemCommand(), checkCommand(), inspectCommand(), restoreCommand(), rescueCommand(),
		&cobra.Command{Use: "version", Short: "Print the version", Args: cobra.NoArgs, Run: func(cmd *cobra.Command, _ []string) {
			fmt.Fprintln(cmd.OutOrStdout(), "gobtrfs", version)
		}},
	)
	return root
}
