package delta

// Thumb and Thumb-2 encodings whose operand depends on where code and data lie (ARMv7-M ARM,
// A5-A7). a is the first halfword, b the second.

func wide(a uint32) bool    { return a>>11 >= 0x1d }                       // 32-bit instruction
func isBL(a, b uint32) bool { return a>>11 == 0x1e && b&0xd000 == 0xd000 } // BL
func isBW(a, b uint32) bool { return a>>11 == 0x1e && b&0xd000 == 0x9000 } // B.W
func isLDR(a uint32) bool   { return a>>11 == 0x09 }                       // LDR Rt, [PC, #imm8*4]
func isBCond(a uint32) bool { return a>>12 == 0x0d && a>>8&15 < 14 }       // B<c> imm8
func isB(a uint32) bool     { return a>>11 == 0x1c }                       // B imm11
func isBCondW(a, b uint32) bool { // B<c>.W
	return a>>11 == 0x1e && b&0xd000 == 0x8000 && a>>6&15 < 14
}

// branchOffset returns the displacement of a BL, B.W or B<c>.W from its address + 4.
func branchOffset(a, b uint32) int32 {
	s, j1, j2 := a>>10&1, b>>13&1, b>>11&1
	if isBCondW(a, b) {
		return int32((s<<20|j2<<19|j1<<18|a&0x3f<<12|b&0x7ff<<1)<<11) >> 11
	}
	i1, i2 := ^(j1^s)&1, ^(j2^s)&1
	return int32((s<<24|i1<<23|i2<<22|a&0x3ff<<12|b&0x7ff<<1)<<7) >> 7
}

// setBranch returns the instruction with another displacement, truncated to what it can hold.
func setBranch(a, b uint32, offset int32) (uint32, uint32) {
	v := uint32(offset)
	if isBCondW(a, b) {
		return a&^0x43f | v>>20&1<<10 | v>>12&0x3f, b&0xd000 | v>>18&1<<13 | v>>19&1<<11 | v>>1&0x7ff
	}
	s := v >> 24 & 1
	j1, j2 := ^(v>>23^s)&1, ^(v>>22^s)&1
	return a&0xf800 | s<<10 | v>>12&0x3ff, b&0xd000 | j1<<13 | j2<<11 | v>>1&0x7ff
}
