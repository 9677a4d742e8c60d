package fragfile_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/sower-fuota/sower/fragmentation"
	"github.com/sower-fuota/sower/fragmentation/fragfile"
)

func transmission(t *testing.T, block []byte, size int, indices ...int) []string {
	t.Helper()
	e, err := fragmentation.NewEncoder(block, size, fragmentation.V2)
	if err != nil {
		t.Fatal(err)
	}
	var file bytes.Buffer
	if err := fragfile.WriteBlock(&file, e, indices); err != nil {
		t.Fatal(err)
	}
	return strings.SplitAfter(strings.TrimSuffix(file.String(), "\n"), "\n")
}

func TestReadBlock(t *testing.T) {
	block := []byte("a data block of forty-one bytes, exactly.")
	lines := transmission(t, block, 4, 12, 13, 20, 21, 500, 16383)
	if len(lines) != 1+11+6 {
		t.Fatalf("%d lines", len(lines))
	}
	tests := []struct {
		name string
		keep []int // lines after the first
		want fragfile.Stats
	}{
		{"everything in order", []int{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13},
			fragfile.Stats{Received: 13, Used: 11, Uncoded: 11}},
		{"backwards, one repeated", []int{11, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1},
			fragfile.Stats{Received: 12, Used: 12, Uncoded: 11, Useless: 1}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			file := lines[0]
			for _, i := range tt.keep {
				file += strings.TrimSuffix(lines[i], "\n") + "\n"
			}
			got, st, err := fragfile.ReadBlock(strings.NewReader(file))
			if err != nil || !bytes.Equal(got, block) {
				t.Fatalf("%q, %v", got, err)
			}
			tt.want.Session = fragfile.Session{M: 11, Size: 4, Padding: 3, Matrix: fragmentation.V2}
			if st != tt.want {
				t.Errorf("%+v, want %+v", st, tt.want)
			}
		})
	}
	if got, st, err := fragfile.ReadBlock(strings.NewReader(strings.Join(append(lines[:1:1], lines[4:]...), ""))); err != nil || !bytes.Equal(got, block) || st.Missing != 0 {
		t.Errorf("without three fragments: %q, %+v, %v", got, st, err)
	}
}

func TestReadBlockRefuses(t *testing.T) {
	lines := transmission(t, []byte("a data block of forty-one bytes, exactly."), 4, 12, 13)
	short := strings.Join(lines[:9], "")
	if _, st, err := fragfile.ReadBlock(strings.NewReader(short)); !errors.Is(err, fragmentation.ErrNeedMore) || st.Missing != 3 || st.Received != 8 {
		t.Errorf("8 of 11 fragments: %+v, %v; want ErrNeedMore and 3 missing", st, err)
	}
	forged := short + `{"n":3,"data":"00000000"}` + "\n"
	var at *fragfile.LineError
	if _, _, err := fragfile.ReadBlock(strings.NewReader(forged)); !errors.Is(err, fragmentation.ErrConflict) || !errors.As(err, &at) || at.Line != 10 {
		t.Errorf("contradictory repetition: %v, want ErrConflict on line 10", err)
	}
	// After completion, too: parity of another matrix.
	late := strings.Join(lines[:12], "") + fmt.Sprintf(`{"n":%d,"data":"00000000"}`, 13)
	if _, _, err := fragfile.ReadBlock(strings.NewReader(late)); !errors.Is(err, fragmentation.ErrConflict) {
		t.Errorf("foreign parity after completion: %v, want ErrConflict", err)
	}
	if _, _, err := fragfile.ReadBlock(strings.NewReader("")); !errors.Is(err, fragfile.ErrFormat) {
		t.Errorf("empty file: %v, want ErrFormat", err)
	}
}

func Example() {
	e, err := fragmentation.NewEncoder([]byte("a very small firmware patch"), 8, fragmentation.V1)
	if err != nil {
		panic(err)
	}
	var file strings.Builder
	if err := fragfile.WriteBlock(&file, e, []int{5, 6, 7}); err != nil {
		panic(err)
	}
	fmt.Print(file.String())

	// A device that lost fragments 2 and 6:
	lines := strings.SplitAfter(file.String(), "\n")
	received := lines[0] + lines[1] + lines[3] + lines[4] + lines[5] + lines[7]
	block, stats, err := fragfile.ReadBlock(strings.NewReader(received))
	fmt.Printf("%s (%d of %d fragments used, %v)\n", block, stats.Used, stats.Received, err)
	// Output:
	// {"m":4,"size":8,"padding":5,"matrix":"v1"}
	// {"n":1,"data":"6120766572792073"}
	// {"n":2,"data":"6d616c6c20666972"}
	// {"n":3,"data":"6d77617265207061"}
	// {"n":4,"data":"7463680000000000"}
	// {"n":5,"data":"0c57171717595012"}
	// {"n":6,"data":"0c57171717595012"}
	// {"n":7,"data":"1902046c20666972"}
	// a very small firmware patch (5 of 5 fragments used, <nil>)
}
