package main

import (
	"bufio"
	"bytes"
	"cmp"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/sower-fuota/sower/fragmentation"
	"github.com/sower-fuota/sower/fragmentation/fragfile"
)

// defaultMaxSize fits EU868 DR4 and DR5 also behind a repeater: 222 bytes less CID and IndexN.
const defaultMaxSize = 219

func newFragmentCommand() *cobra.Command {
	var req fragmentation.Request
	var matrix, indices, out string
	var asJSON, explain bool
	cmd := &cobra.Command{
		Use:   "fragment BLOCK",
		Short: "split a block into fragments and parity",
		Long: `fragment writes the TS004 fragments of a block as JSON lines: first the session, then the uncoded
fragments, then parity. BLOCK may be - for the standard input.

What is given is obeyed, with a warning where it is unwise; what is left out is chosen so that the parity
matrix has no hole there. Parity fragments are numbered from M+1 on unless --indices auto.

Fragments go to the standard output, statistics and explanations to the standard error; with -o FILE
fragments go to the file and statistics and explanations to the standard output.`,
		Example: `  sower fragment update.sow --max-size 48 --indices auto --explain -o update.frags
  sower fragment update.sow --size 48 --parity 60 | sower reassemble - -o copy.sow`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if req.Matrix, err = fragmentation.ParseMatrix(matrix); err != nil {
				return usagef("--matrix %q, want v1, v2 or v2abs", matrix)
			}
			switch indices {
			case "auto":
			case "sequence":
				req.Ordered = true
			default:
				return usagef("--indices %q, want auto or sequence", indices)
			}
			if err := fragmentFlags(cmd, &req); err != nil {
				return err
			}
			block, err := readBlock(cmd.InOrStdin(), args[0])
			if err != nil {
				return err
			}
			req.Length = len(block)
			choice, err := fragmentation.Choose(req)
			if err != nil {
				return fmt.Errorf("block %s: %w", args[0], err)
			}
			choice.Reasons = append(defaultReasons(cmd), choice.Reasons...)
			e, err := fragmentation.NewEncoder(block, choice.Size, choice.Matrix)
			if err != nil {
				return fmt.Errorf("block %s: %w", args[0], err)
			}
			report := cmd.OutOrStdout()
			if out == "" {
				report = cmd.ErrOrStderr()
				if err := streamFragments(cmd.OutOrStdout(), e, choice.Indices); err != nil {
					return err
				}
			} else {
				var file bytes.Buffer
				if err := fragfile.WriteBlock(&file, e, choice.Indices); err != nil {
					return err
				}
				if err := writeOutput(out, file.Bytes(), 0o644); err != nil {
					return err
				}
			}
			if asJSON {
				return printJSON(report, fragmentReport(choice, len(block)))
			}
			for _, r := range choice.Reasons {
				switch {
				case r.Warning:
					fmt.Fprintf(cmd.ErrOrStderr(), "sower: warning: %s\n", r.Text)
				case explain:
					fmt.Fprintf(report, "%s\n", r.Text)
				}
			}
			if out != "" || explain {
				fmt.Fprintf(report, "%s: %d bytes in %d fragments of %d bytes, %d of them parity, %d bytes of padding, matrix %v\n",
					cmp.Or(out, "standard output"), len(block), choice.M+len(choice.Indices), choice.Size, len(choice.Indices), choice.Padding, choice.Matrix)
			}
			return nil
		},
	}
	fl := cmd.Flags()
	fl.IntVar(&req.Size, "size", 0, "fragment size in bytes, 1..255 (default: chosen)")
	fl.IntVar(&req.MaxSize, "max-size", defaultMaxSize, "largest fragment the data rate carries in bytes, for the choice of --size")
	fl.IntVar(&req.Parity, "parity", 0, "number of parity fragments (default: enough for 999 of 1000 devices)")
	fl.StringVar(&matrix, "matrix", "v1", "parity matrix of the devices: v1, v2 or v2abs")
	fl.StringVar(&indices, "indices", "sequence", "which parity fragments: sequence (M+1, M+2, ...) or auto (chosen)")
	fl.Float64Var(&req.Loss, "loss", 0.10, "share of fragments the devices lose, for what is chosen")
	fl.StringVarP(&out, "output", "o", "", "file to write the fragments to (default: standard output)")
	fl.BoolVar(&asJSON, "json", false, "print statistics and reasons as JSON")
	fl.BoolVar(&explain, "explain", false, "say why this fragment size and these parity fragments")
	return cmd
}

// fragmentFlags checks the numbers that were given and fills in what their absence means.
func fragmentFlags(cmd *cobra.Command, req *fragmentation.Request) error {
	given := cmd.Flags().Changed
	if given("size") {
		if req.Size < 1 || req.Size > fragmentation.MaxSize {
			return usagef("--size %d, want 1..%d", req.Size, fragmentation.MaxSize)
		}
		if !given("max-size") {
			req.MaxSize = fragmentation.MaxSize
		}
	}
	if req.MaxSize < 1 || req.MaxSize > fragmentation.MaxSize {
		return usagef("--max-size %d, want 1..%d", req.MaxSize, fragmentation.MaxSize)
	}
	if req.Size > req.MaxSize {
		return usagef("--size %d is above --max-size %d", req.Size, req.MaxSize)
	}
	if given("parity") {
		if req.Parity < 0 || req.Parity > fragmentation.MaxIndex-1 {
			return usagef("--parity %d, want 0..%d", req.Parity, fragmentation.MaxIndex-1)
		}
		if req.Parity == 0 {
			req.Parity = -1 // none, rather than a choice
		}
	}
	if !(req.Loss > 0 && req.Loss <= 0.9) {
		return usagef("--loss %v, want a share above 0 and at most 0.9", req.Loss)
	}
	return nil
}

// defaultReasons says what the command line assumed.
func defaultReasons(cmd *cobra.Command) []fragmentation.Reason {
	var reasons []fragmentation.Reason
	given := cmd.Flags().Changed
	if !given("matrix") {
		reasons = append(reasons, fragmentation.Reason{Code: "matrix",
			Text: "matrix v1, which every device with TS004-1.0.0 has; give --matrix v2 for devices with TS004-2.0.0"})
	}
	if !given("size") && !given("max-size") {
		reasons = append(reasons, fragmentation.Reason{Code: "max-size", Text: fmt.Sprintf(
			"fragments of at most %d bytes, for EU868 DR4 and DR5; give --max-size for another data rate", defaultMaxSize)})
	}
	return reasons
}

// readBlock reads a block file, or all of the standard input for "-", but no more than the
// largest block that TS004 can carry.
func readBlock(stdin io.Reader, path string) ([]byte, error) {
	if path != "-" {
		return readInput("block", path)
	}
	const limit = fragmentation.MaxIndex * fragmentation.MaxSize
	block, err := io.ReadAll(io.LimitReader(stdin, limit+1))
	if err != nil {
		return nil, fmt.Errorf("block on standard input: %w", err)
	}
	switch {
	case len(block) == 0:
		return nil, fmt.Errorf("block on standard input: it is empty")
	case len(block) > limit:
		return nil, fmt.Errorf("block on standard input: more than the %d bytes that TS004 carries", limit)
	}
	return block, nil
}

// streamFragments writes fragments as they are made.
func streamFragments(w io.Writer, e *fragmentation.Encoder, indices []int) error {
	buf := bufio.NewWriterSize(w, 1<<16)
	if err := fragfile.WriteBlock(buf, e, indices); err != nil {
		return fmt.Errorf("standard output: %w", err)
	}
	if err := buf.Flush(); err != nil {
		return fmt.Errorf("standard output: %w", err)
	}
	return nil
}

func fragmentReport(c fragmentation.Choice, length int) any {
	return struct {
		Length    int                    `json:"length"`
		M         int                    `json:"m"`
		Size      int                    `json:"size"`
		Padding   int                    `json:"padding"`
		Matrix    fragmentation.Matrix   `json:"matrix"`
		Parity    int                    `json:"parity"`
		Indices   []int                  `json:"indices"`
		Loss      float64                `json:"loss"`
		Devices   int                    `json:"devices_simulated"`
		MeanExtra float64                `json:"mean_extra"`
		FailAt10  float64                `json:"fail_at_m_plus_10"`
		Floor     float64                `json:"failure_floor"`
		Reasons   []fragmentation.Reason `json:"reasons"`
	}{
		length, c.M, c.Size, c.Padding, c.Matrix, len(c.Indices), append([]int{}, c.Indices...), c.Loss,
		c.Overhead.Devices, c.Overhead.Mean(), c.Overhead.FailAt(10), c.Weaknesses.Floor(c.Loss), c.Reasons,
	}
}
