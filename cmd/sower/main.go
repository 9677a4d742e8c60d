// Command sower updates the firmware of LPWAN fleets: it makes patches and bundles, plans and rehearses
// campaigns, and runs them.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"github.com/spf13/cobra"
)

// Exit codes, the same for every verb.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is main with its surroundings as parameters.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := newRootCommand()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitDone
	}
	fmt.Fprintf(stderr, "sower: %v\n", err)
	if errors.As(err, new(usageError)) {
		fmt.Fprintln(stderr, "run `sower --help`, or `sower VERB --help`, for the arguments")
		return exitUsage
	}
	return exitFailed
}

// usageError is an error in the words of the command line, not in the work they ask for.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

// usagef returns a usage error.
func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "sower",
		Short: "firmware updates, broadcast to LPWAN fleets",
		Long: `sower turns (old image, new image, fleet) into every device running the new image.

It makes a signed delta patch, splits it into forward-error-corrected fragments, sends them by multicast
through ChirpStack, repairs, and proves what each device runs. Exit codes: 0 done, 1 failed, 2 usage.`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.Version = version()
	root.SetVersionTemplate("sower {{.Version}}, built with " + runtime.Version() + "\n")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(
		newDiffCommand(),
		newApplyCommand(),
		newKeygenCommand(),
		newSignCommand(),
		newInspectCommand(),
		newFragmentCommand(),
		newReassembleCommand(),
		newInitCommand(),
		newDoctorCommand(),
		newDevicesCommand(),
		newKeysCommand(),
		newCampaignCommand(),
		newPlanCommand(),
		newServeCommand(),
		newTokenCommand(),
		newAuditCommand(),
		newBackupCommand(),
		newRehearseCommand(),
		newSimulateCommand(),
		newBenchCommand(),
	)
	refuseArguments(root)
	return root
}

// refuseArguments makes wrong arguments of a command and of those below it usage errors.
func refuseArguments(cmd *cobra.Command) {
	if args := cmd.Args; args != nil {
		cmd.Args = func(cmd *cobra.Command, a []string) error {
			if err := args(cmd, a); err != nil {
				return usagef("%s: %w", cmd.Name(), err)
			}
			return nil
		}
	}
	for _, c := range cmd.Commands() {
		refuseArguments(c)
	}
}
