package config

import (
	"net/url"
	"time"

	"github.com/sower-fuota/sower/airtime"
)

// Settings is sower.toml. Zero values mean the defaults that [SettingsTemplate] names.
type Settings struct {
	ChirpStack ChirpStack `toml:"chirpstack"`
	Airtime    Airtime    `toml:"airtime"`
	Inventory  Inventory  `toml:"inventory"`
	Hardware   []Hardware `toml:"hardware"`
	Server     Server     `toml:"server"`

	Region airtime.Region // of ChirpStack.Region; 0: every device works in that of its profile
}

// ChirpStack says how to reach the network server and its broker. Secrets are named by file or by environment
// variable, never written here.
type ChirpStack struct {
	Server       string   `toml:"server"`
	TokenFile    string   `toml:"token_file"`
	TokenEnv     string   `toml:"token_env"`
	Region       string   `toml:"region"`
	Applications []string `toml:"applications"`
	CAFile       string   `toml:"ca_file"`
	Timeout      Duration `toml:"timeout"`
	Margin       Duration `toml:"multicast_class_c_margin"`

	MQTT         string `toml:"mqtt"`
	Username     string `toml:"mqtt_username"`
	PasswordFile string `toml:"mqtt_password_file"`
	PasswordEnv  string `toml:"mqtt_password_env"`
	ClientID     string `toml:"mqtt_client_id"`
	Topic        string `toml:"mqtt_topic"`
	Share        string `toml:"mqtt_share"`

	GatewayTopics string `toml:"gateway_topics"`
	HTTPFile      string `toml:"http_secret_file"`
	HTTPEnv       string `toml:"http_secret_env"`

	KeysFile       string   `toml:"keys_file"`
	KeysPassphrase string   `toml:"keys_passphrase_file"`
	KeysProgram    []string `toml:"keys_program"`
}

// Server is the daemon, `sower serve`. Paths are seen from where the file is.
type Server struct {
	Database   string `toml:"database"`
	Listen     string `toml:"listen"`
	TLSCert    string `toml:"tls_cert"`
	TLSKey     string `toml:"tls_key"`
	BackupDir  string `toml:"backup_dir"`
	KeepLog    int    `toml:"keep_log_days"` // 0: for ever
	Metrics    bool   `toml:"metrics_without_token"`
	Webhook    string `toml:"webhook"`
	SecretFile string `toml:"webhook_secret_file"`
	SecretEnv  string `toml:"webhook_secret_env"`
}

// Airtime says how much of the air campaigns may use.
type Airtime struct {
	Share    float64 `toml:"share_percent"` // of the duty cycle of a sub-band
	Repeater bool    `toml:"repeater"`
}

// Inventory says where facts about devices come from.
type Inventory struct {
	CSV         string       `toml:"csv"`
	VersionTag  string       `toml:"version_tag"`
	HardwareTag string       `toml:"hardware_tag"`
	Uplinks     []UplinkRule `toml:"uplink"`
}

// UplinkRule finds a fact in uplinks of an application.
type UplinkRule struct {
	FPort  uint8  `toml:"f_port"`
	Fact   string `toml:"fact"`   // "version" or "battery"
	Offset int    `toml:"offset"` // bytes
	Order  string `toml:"order"`  // of the 4 bytes of a version: "little" or "big"
}

// Hardware is what devices of one hardware id can hold.
type Hardware struct {
	ID       uint16  `toml:"id"`
	Class    *uint32 `toml:"class"`
	Slot     uint32  `toml:"slot_bytes"`
	Download uint32  `toml:"download_bytes"`
	Scratch  uint32  `toml:"scratch_bytes"`
	RAM      uint32  `toml:"ram_bytes"`
	Page     uint32  `toml:"page_bytes"`
	Granule  uint32  `toml:"granule_bytes"`
}

// ParseSettings reads sower.toml. Settings with problems are not to be used.
func ParseSettings(file string, text []byte) (Settings, *Document) {
	s := Settings{
		ChirpStack: ChirpStack{Timeout: Duration(10 * time.Second), Margin: Duration(5 * time.Second),
			ClientID: "sower", Topic: "application/%s/device/+/event/+"},
		Airtime:   Airtime{Share: 100, Repeater: true},
		Inventory: Inventory{VersionTag: "firmware_version", HardwareTag: "hardware_id"},
		Server:    Server{Database: "sower.db", Listen: "127.0.0.1:7060", Metrics: true},
	}
	d := read(file, text, &s, map[string]string{
		"chirpstack.token":         "a token does not belong in a file that is shown around: put it in a file of its own and name that in token_file",
		"chirpstack.api_key":       "a token does not belong in a file that is shown around: put it in a file of its own and name that in token_file",
		"chirpstack.mqtt_password": "put it in a file of its own and name that in mqtt_password_file",
		"chirpstack.password":      "put it in a file of its own and name that in mqtt_password_file",
		"chirpstack.http_secret":   "put it in a file of its own and name that in http_secret_file",
		"server.webhook_secret":    "put it in a file of its own and name that in webhook_secret_file",
	})
	if len(d.Problems) > 0 && len(d.lines) == 0 {
		return s, d // not TOML
	}
	cs := s.ChirpStack
	if cs.Server == "" {
		d.Add("chirpstack", `add server = "HOST:PORT"`, "chirpstack.server is missing")
	}
	switch {
	case cs.TokenFile == "" && cs.TokenEnv == "":
		d.Add("chirpstack", "add token_file or token_env", "nothing names the API token of ChirpStack")
	case cs.TokenFile != "" && cs.TokenEnv != "":
		d.Add("chirpstack.token_env", "remove one of them", "both token_file and token_env name the API token")
	}
	if cs.PasswordFile != "" && cs.PasswordEnv != "" {
		d.Add("chirpstack.mqtt_password_env", "remove one of them", "both mqtt_password_file and mqtt_password_env name the password")
	}
	if cs.HTTPFile != "" && cs.HTTPEnv != "" {
		d.Add("chirpstack.http_secret_env", "remove one of them", "both http_secret_file and http_secret_env name the secret")
	}
	if cs.GatewayTopics != "" && cs.MQTT == "" {
		d.Add("chirpstack.gateway_topics", "name the broker of the gateways with mqtt", "gateway_topics needs a broker")
	}
	switch {
	case len(cs.KeysProgram) > 0 && cs.KeysFile != "":
		d.Add("chirpstack.keys_program", "remove one of them", "both keys_file and keys_program are sources of root keys")
	case (cs.KeysFile == "") != (cs.KeysPassphrase == ""):
		d.Add("chirpstack", "name both keys_file and keys_passphrase_file, or neither", "a file of root keys and its passphrase go together")
	}
	u, err := url.Parse(cs.MQTT)
	switch {
	case cs.MQTT == "" && cs.HTTPFile == "" && cs.HTTPEnv == "":
		d.Add("chirpstack", `add mqtt = "mqtt://HOST:1883", the broker of ChirpStack's MQTT integration`, "chirpstack.mqtt is missing")
	case err != nil || u.User != nil:
		// The value may hold a password.
		d.Add("chirpstack.mqtt", "write mqtt://HOST:PORT and the user in mqtt_username", "chirpstack.mqtt is no plain address")
	}
	if cs.Region != "" {
		if s.Region, err = airtime.ParseRegion(cs.Region); err != nil {
			d.Add("chirpstack.region", "write the common name of a region, or leave it out", "%s", err)
		}
	}
	if cs.Timeout <= 0 {
		d.Add("chirpstack.timeout", "write a duration above 0", "chirpstack.timeout is %s", time.Duration(cs.Timeout))
	}
	if cs.Margin <= 0 {
		d.Add("chirpstack.multicast_class_c_margin", "copy the value of [network.scheduler] from chirpstack.toml; its default is 5s",
			"chirpstack.multicast_class_c_margin is %s", time.Duration(cs.Margin))
	}
	if !(s.Airtime.Share > 0 && s.Airtime.Share <= 100) {
		d.Add("airtime.share_percent", "write more than 0 and at most 100", "airtime.share_percent is %v", s.Airtime.Share)
	}
	s.Server.check(d)
	for i, r := range s.Inventory.Uplinks {
		key := indexed("inventory.uplink", i)
		if r.FPort == 0 || r.FPort > 223 {
			d.Add(key+".f_port", "write the port on which the devices send it, 1..223", "%s.f_port is %d", key, r.FPort)
		}
		if r.Fact != "version" && r.Fact != "battery" {
			d.Add(key+".fact", `write "version" or "battery"`, "%s.fact is %q", key, r.Fact)
		}
		if r.Order != "" && r.Order != "little" && r.Order != "big" {
			d.Add(key+".order", `write "little" or "big"`, "%s.order is %q", key, r.Order)
		}
	}
	seen := map[uint16]bool{}
	for i, h := range s.Hardware {
		key := indexed("hardware", i)
		if seen[h.ID] {
			d.Add(key+".id", "keep one entry for each hardware id", "hardware id %d is described twice", h.ID)
		}
		seen[h.ID] = true
		for _, f := range []struct {
			name  string
			value uint32
		}{{"slot_bytes", h.Slot}, {"download_bytes", h.Download}, {"ram_bytes", h.RAM}} {
			if f.value == 0 {
				d.Add(key+"."+f.name, "copy it from the flash map (struct sow_map) of the firmware", "%s.%s is missing or 0", key, f.name)
			}
		}
		if g := h.Granule; g > 16 || g&(g-1) != 0 {
			d.Add(key+".granule_bytes", "write 1, 2, 4, 8 or 16", "%s.granule_bytes is %d", key, g)
		}
	}
	return s, d
}

func (s Server) check(d *Document) {
	if s.Database == "" {
		d.Add("server.database", "write a path, or leave it out", "server.database is empty")
	}
	if s.KeepLog < 0 {
		d.Add("server.keep_log_days", "write 1 or more, or 0 to keep logs for ever", "server.keep_log_days is %d", s.KeepLog)
	}
	if (s.TLSCert == "") != (s.TLSKey == "") {
		d.Add("server", "name both tls_cert and tls_key, or neither", "a certificate and its key go together")
	}
	if s.SecretFile != "" && s.SecretEnv != "" {
		d.Add("server.webhook_secret_env", "remove one of them", "both webhook_secret_file and webhook_secret_env name the secret")
	}
	if s.Webhook != "" && s.SecretFile == "" && s.SecretEnv == "" {
		d.Add("server.webhook", "add webhook_secret_file or webhook_secret_env, by which the receiver knows who is calling", "nothing names the secret of the webhook")
	}
}
