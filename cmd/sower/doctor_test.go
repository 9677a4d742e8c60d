package main

import (
	"os"
	"testing"
)

// Every file with a secret that others can read is found, not only that of the API token.
func TestDoctorFindsOpenSecrets(t *testing.T) {
	in := install(t, nil)
	text, err := os.ReadFile(in.file("sower.toml"))
	if err != nil {
		t.Fatal(err)
	}
	in.write(t, "sower.toml", string(text)+"[server]\nwebhook = \"https://hooks.example.com/\"\nwebhook_secret_file = \"webhook.secret\"\n")
	for _, name := range []string{"webhook.secret", "evidence.key"} {
		in.write(t, name, "secret\n")
		if r, _ := doctor(t, in, "--listen", "1ms"); r.state("settings", "others on this machine") == "failed" {
			t.Errorf("%s is closed: %+v", name, r.Checks)
		}
		if err := os.Chmod(in.file(name), 0o640); err != nil {
			t.Fatal(err)
		}
		r, err := doctor(t, in, "--listen", "1ms")
		if err == nil || r.state("settings", name) != "failed" || r.Checks[0].Remedy != "chmod 600 "+in.file(name) {
			t.Errorf("%s is open to others: %v %+v", name, err, r.Checks)
		}
		if err := os.Chmod(in.file(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
