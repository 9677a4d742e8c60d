package datablock

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
)

// DataBlockIntKey returns the key of [SessionMIC]. rootKey is the GenAppKey of a LoRaWAN 1.0.x
// device or the AppKey of a LoRaWAN 1.1 device.
func DataBlockIntKey(rootKey [16]byte) (key [16]byte) {
	newCipher(rootKey).Encrypt(key[:], []byte{0x30, 15: 0})
	return key
}

// SessionMIC returns the MIC of a version 2 [FragSessionSetupReq]: the first 4 bytes of the AES-CMAC
// of the block that follows and of
//
//	off  len  field
//	  0    1  0x49
//	  1    2  SessionCnt
//	  3    1  FragIndex
//	  4    4  Descriptor
//	  8    4  0
//	 12    4  length of the block in bytes
//
// block is what the uncoded fragments carry, without padding. The key belongs to one device, so
// each member of a multicast group needs a setup of its own. Whoever knows the device's root key
// can forge the MIC; it does not replace the signature of an image.
func SessionMIC(dataBlockIntKey [16]byte, sessionCnt uint16, fragIndex uint8, descriptor [4]byte, block []byte) [4]byte {
	b0 := [16]byte{0: 0x49, 3: fragIndex}
	binary.LittleEndian.PutUint16(b0[1:], sessionCnt)
	copy(b0[4:], descriptor[:])
	binary.LittleEndian.PutUint32(b0[12:], uint32(len(block)))
	m := newCMAC(dataBlockIntKey)
	m.write(b0[:])
	m.write(block)
	sum := m.sum()
	return [4]byte(sum[:4])
}

// cmac computes AES-CMAC, RFC 4493. The last block is held back until sum, which treats it apart.
type cmac struct {
	aes cipher.Block
	x   [16]byte // chaining value; the held block is already added
	n   int      // bytes of the held block
}

func newCMAC(key [16]byte) cmac { return cmac{aes: newCipher(key)} }

func (m *cmac) write(p []byte) {
	for len(p) > 0 {
		if m.n == len(m.x) {
			m.aes.Encrypt(m.x[:], m.x[:])
			m.n = 0
		}
		n := min(len(p), len(m.x)-m.n)
		for i, b := range p[:n] {
			m.x[m.n+i] ^= b
		}
		m.n += n
		p = p[n:]
	}
}

func (m *cmac) sum() [16]byte {
	var k [16]byte
	m.aes.Encrypt(k[:], k[:])
	k = double(k)
	x := m.x
	if m.n < len(x) {
		k = double(k)
		x[m.n] ^= 0x80
	}
	for i := range x {
		x[i] ^= k[i]
	}
	m.aes.Encrypt(x[:], x[:])
	return x
}

// double multiplies by x in GF(2^128), RFC 4493 section 2.3.
func double(k [16]byte) [16]byte {
	hi, lo := binary.BigEndian.Uint64(k[:8]), binary.BigEndian.Uint64(k[8:])
	binary.BigEndian.PutUint64(k[:8], hi<<1|lo>>63)
	binary.BigEndian.PutUint64(k[8:], lo<<1^(hi>>63)*0x87)
	return k
}

func newCipher(key [16]byte) cipher.Block {
	c, err := aes.NewCipher(key[:])
	if err != nil {
		panic("datablock: internal error: " + err.Error()) // AES takes every key of 16 bytes
	}
	return c
}
