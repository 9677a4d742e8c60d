package serial

import (
	"fmt"

	goserial "github.com/jacobsa/go-serial/serial"
)

// Open opens a UART with 8 data bits, no parity and one stop bit.
func Open(path string, baud uint) (Port, error) {
	// With MinimumReadSize 0 a Read returns empty-handed after the time-out; any other would block in the kernel,
	// and Close with it.
	port, err := goserial.Open(goserial.OpenOptions{
		PortName: path, BaudRate: baud, DataBits: 8, StopBits: 1,
		MinimumReadSize: 0, InterCharacterTimeout: 100,
	})
	if err != nil {
		return nil, fmt.Errorf("serial: port %s at %d baud: %w", path, baud, err)
	}
	return port, nil
}
