package mcsetup

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
)

// McRootKeyFromGenAppKey returns the McRootKey of a LoRaWAN 1.0.x device. GenAppKey is provisioned
// for this purpose alone; it is never the AppKey with which the device joins.
func McRootKeyFromGenAppKey(genAppKey [16]byte) [16]byte {
	return encrypt(genAppKey, [16]byte{})
}

// McRootKeyFromAppKey returns the McRootKey of a LoRaWAN 1.1 device.
func McRootKeyFromAppKey(appKey [16]byte) [16]byte {
	return encrypt(appKey, [16]byte{0x20})
}

// McKEKey returns the key that protects the McKey of any group on its way to one device.
func McKEKey(mcRootKey [16]byte) [16]byte {
	return encrypt(mcRootKey, [16]byte{})
}

// EncryptMcKey is the server's side of McKey_encrypted. It is an AES decryption, so that the
// device's side, [DecryptMcKey], needs encryption only.
func EncryptMcKey(mcKEKey, mcKey [16]byte) (mcKeyEncrypted [16]byte) {
	newCipher(mcKEKey).Decrypt(mcKeyEncrypted[:], mcKey[:])
	return mcKeyEncrypted
}

// DecryptMcKey is the device's side of McKey_encrypted.
func DecryptMcKey(mcKEKey, mcKeyEncrypted [16]byte) (mcKey [16]byte) {
	return encrypt(mcKEKey, mcKeyEncrypted)
}

// McAppSKey returns the key that encrypts the payload of the group's frames.
func McAppSKey(mcKey [16]byte, mcAddr uint32) [16]byte {
	return encrypt(mcKey, sessionBlock(0x01, mcAddr))
}

// McNwkSKey returns the key of the frames' MIC. Version 1 calls it McNetSKey.
func McNwkSKey(mcKey [16]byte, mcAddr uint32) [16]byte {
	return encrypt(mcKey, sessionBlock(0x02, mcAddr))
}

// sessionBlock is the kind of key, McAddr and zeros.
func sessionBlock(kind byte, mcAddr uint32) [16]byte {
	b := [16]byte{kind}
	binary.LittleEndian.PutUint32(b[1:], mcAddr)
	return b
}

func encrypt(key, block [16]byte) (out [16]byte) {
	newCipher(key).Encrypt(out[:], block[:])
	return out
}

func newCipher(key [16]byte) cipher.Block {
	c, err := aes.NewCipher(key[:])
	if err != nil {
		panic("mcsetup: internal error: " + err.Error()) // AES takes every key of 16 bytes
	}
	return c
}
