package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/sower-fuota/sower/fragmentation"
	"github.com/sower-fuota/sower/fragmentation/fragfile"
)

func newReassembleCommand() *cobra.Command {
	var out string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "reassemble FRAGS -o BLOCK",
		Short: "restore a block from its fragments",
		Long: `reassemble restores the block of a fragment file: a session, then fragments in any order, with gaps
and repetitions. FRAGS may be - for the standard input, BLOCK for the standard output.

Nothing is written unless the block is complete and no fragment contradicts another.`,
		Example: "  sower reassemble update.frags -o update.sow",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			in, name := cmd.InOrStdin(), "standard input"
			if args[0] != "-" {
				f, err := os.Open(args[0])
				if err != nil {
					return fmt.Errorf("fragments %s: %w", args[0], unwrapPath(err))
				}
				defer f.Close()
				in, name = f, args[0]
			}
			block, stats, err := fragfile.ReadBlock(in)
			report := cmd.OutOrStdout()
			if out == "-" {
				report = cmd.ErrOrStderr()
			}
			if errors.Is(err, fragmentation.ErrNeedMore) && asJSON {
				if err := printJSON(report, reassembleReport(stats, 0)); err != nil {
					return err
				}
			}
			if err != nil {
				return fmt.Errorf("fragments %s: %w", name, unwrapPath(err))
			}
			if out == "-" {
				if _, err := cmd.OutOrStdout().Write(block); err != nil {
					return fmt.Errorf("standard output: %w", unwrapPath(err))
				}
			} else if err := writeOutput(out, block, 0o644); err != nil {
				return err
			}
			if asJSON {
				return printJSON(report, reassembleReport(stats, len(block)))
			}
			fmt.Fprintf(report, "%s: %d bytes from %d of %d fragments, %d uncoded ones lost\n",
				out, len(block), stats.Used, stats.Received, stats.M-stats.Uncoded)
			return nil
		},
	}
	cmd.Flags().StringVarP(&out, "output", "o", "", "file to write the block to, - for the standard output (required)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print statistics as JSON")
	mustFlag(cmd, "output")
	return cmd
}

func reassembleReport(s fragfile.Stats, length int) any {
	return struct {
		fragfile.Stats
		Complete bool `json:"complete"`
		Length   int  `json:"length"`
	}{s, s.Missing == 0, length}
}
