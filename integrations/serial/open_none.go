//go:build !goserial

package serial

import (
	"errors"
	"fmt"
)

// Open opens a UART with 8 data bits, no parity and one stop bit.
func Open(path string, baud uint) (Port, error) {
	return nil, fmt.Errorf("serial: port %s at %d baud: %w: this program was built without UART support; build it with -tags goserial",
		path, baud, errors.ErrUnsupported)
}
