package radio

import "math"

// The functions of this file give the same bits on every processor: they use only operations that IEEE 754
// rounds correctly (+ - * / and the square root), and each product is converted to float64 so that no compiler
// fuses it with a sum. Package math does not promise that. They are accurate to some 1e-14, which is far more
// than a loss probability needs.

const (
	ln2Hi = 6.93147180369123816490e-01
	ln2Lo = 1.90821492927058770002e-10
)

// exp returns e^x.
func exp(x float64) float64 {
	if x > 700 {
		return math.MaxFloat64
	}
	if x < -700 {
		return 0
	}
	k := math.Floor(float64(x/math.Ln2) + 0.5)
	r := (x - float64(k*ln2Hi)) - float64(k*ln2Lo) // within ±ln 2 / 2
	sum, term := 1.0, 1.0
	for i := 1; i <= 16; i++ {
		term = float64(term*r) / float64(i)
		sum += term
	}
	return math.Ldexp(sum, int(k)) // a scaling, exact
}

// log returns the natural logarithm of x > 0.
func log(x float64) float64 {
	f, k := math.Frexp(x) // x = f·2^k, exact
	if f < math.Sqrt2/2 {
		f, k = float64(f*2), k-1
	}
	// ln f = 2 artanh s, |s| <= 0.172
	s := (f - 1) / (f + 1)
	s2 := float64(s * s)
	sum, power := 0.0, s
	for i := 1; i <= 25; i += 2 {
		sum += power / float64(i)
		power = float64(power * s2)
	}
	return float64(2*sum) + (float64(float64(k)*ln2Hi) + float64(float64(k)*ln2Lo))
}

// draws is a counter-based stream of random numbers for the parameters of one device.
type draws struct {
	key uint64
	n   uint64
}

func (d *draws) bits() uint64 {
	d.n++
	return mix(d.key + d.n*golden)
}

// uniform is in (0, 1), a multiple of 2^-53 plus 2^-54.
func (d *draws) uniform() float64 { return float64(float64(float64(d.bits()>>11)+0.5) * 0x1p-53) }

// normal is from N(0, 1), by Marsaglia's polar method.
func (d *draws) normal() float64 {
	for {
		u := float64(2*d.uniform()) - 1
		v := float64(2*d.uniform()) - 1
		s := float64(u*u) + float64(v*v)
		if s < 1 && s > 0 {
			return float64(u * math.Sqrt(float64(-2*log(s))/s))
		}
	}
}

// gamma is from Gamma(a, 1), by Marsaglia and Tsang's method (2000).
func (d *draws) gamma(a float64) float64 {
	boost := 1.0
	if a < 1 {
		boost = exp(log(d.uniform()) / a)
		a++
	}
	e := a - 1.0/3
	c := 1 / math.Sqrt(float64(9*e))
	for {
		x := d.normal()
		v := 1 + float64(c*x)
		if v <= 0 {
			continue
		}
		v = float64(float64(v*v) * v)
		if log(d.uniform()) < float64(0.5*float64(x*x))+float64(e*(1-v+log(v))) {
			return float64(float64(e*v) * boost)
		}
	}
}

// beta is from Beta(a, b).
func (d *draws) beta(a, b float64) float64 {
	x, y := d.gamma(a), d.gamma(b)
	if x+y <= 0 { // both underflow for tiny parameters: all mass at the ends
		if d.uniform() < a/(a+b) {
			return 1
		}
		return 0
	}
	return x / (x + y)
}
