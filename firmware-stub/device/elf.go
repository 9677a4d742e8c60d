package device

import (
	"fmt"
	"os"

	"github.com/sower-fuota/sower/bundle/image"
)

// CodeChange says how the functions of one firmware differ from those of another.
type CodeChange = image.CodeChange

// CompareELF compares the functions of two ELF files; see [image.CompareELF].
func CompareELF(oldPath, newPath string) (CodeChange, error) {
	var files [2][]byte
	for i, path := range []string{oldPath, newPath} {
		var err error
		if files[i], err = os.ReadFile(path); err != nil {
			return CodeChange{}, fmt.Errorf("firmware: %w", err)
		}
	}
	c, err := image.CompareELF(files[0], files[1])
	if err != nil {
		return CodeChange{}, fmt.Errorf("firmware %s, %s: %w", oldPath, newPath, err)
	}
	return c, nil
}
