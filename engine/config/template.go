package config

import (
	"fmt"
	"strings"
)

// SettingsTemplate returns a sower.toml in which every default stands in a comment. It holds no secret: it names
// the file tokenFile. The region may be empty.
func SettingsTemplate(server, mqtt, region, tokenFile string) string {
	line := `# region = ""`
	if region != "" {
		line = fmt.Sprintf("region = %q", region)
	}
	return fmt.Sprintf(settingsText, server, tokenFile, line, mqtt)
}

const settingsText = `# sower.toml: one installation of sower. A line that is commented out shows the default.
# Check it with:  sower doctor

[chirpstack]
# API of ChirpStack v4 (4.12 or later). Plain http is accepted on loopback addresses only; elsewhere write https://.
server = %q
# The API key is not written here. Create one in ChirpStack (Tenant, API keys; or
# "chirpstack -c DIR create-api-key --name sower") and put it in this file, readable by you alone …
token_file = %q
# … or in an environment variable:
# token_env = "SOWER_CHIRPSTACK_TOKEN"
# Devices are served in the region of their device profile (EU868, US915, AU915, AS923, IN865 or KR920), by gateways
# that report from it. Name one here, and devices of any other are refused.
%s
# Applications that doctor and devices look at, by id; campaign files name their own.
applications = []
# Certificate authority of the server and the broker, PEM; the roots of the system.
# ca_file = ""
# Longest wait for one answer.
# timeout = "10s"
# Distance that ChirpStack keeps between two gateways that send the same multicast message:
# [network.scheduler] multicast_class_c_margin in chirpstack.toml.
# multicast_class_c_margin = "5s"

# Broker to which ChirpStack's MQTT integration publishes events, in JSON; ChirpStack must have
# [integration.mqtt] qos = 1, or events are lost while sower restarts.
mqtt = %q
# mqtt_username = ""
# The password is not written here either: name a file or an environment variable.
# mqtt_password_file = ""
# mqtt_password_env = ""
# Must be unique at the broker.
# mqtt_client_id = "sower"
# Topics of the events; %%s stands for the application id.
# mqtt_topic = "application/%%s/device/+/event/+"
# Several sower serve with client ids of their own share the events under one name (MQTT 5).
# mqtt_share = ""
# Topic prefix of the region, such as "eu868", or of several: "eu868, us915_0". Then each gateway's word on each fragment is heard at the broker, and
# what a gateway refuses is sent again and explained. The user of the broker must be allowed to read
# PREFIX/gateway/+/command/down and PREFIX/gateway/+/event/ack.
# gateway_topics = ""
# In place of MQTT, ChirpStack's HTTP integration may post events to /chirpstack of sower serve, with the header
# "Authorization: Bearer SECRET". ChirpStack does not repeat a post that failed; MQTT is safer.
# http_secret_file = ""
# http_secret_env = ""

# Root keys of devices whose keys the server does not have: a file made by "sower keys seal", or a program that prints
# the key of the DevEUI that is its last argument. They are asked before the server.
# keys_file = ""
# keys_passphrase_file = ""
# keys_program = []

[airtime]
# Share of the duty cycle of each sub-band that campaigns may use. The rest stays free for other downlinks.
# share_percent = 100
# Frames may pass a repeater, which makes the longest ones shorter. ChirpStack drops what is too long without a
# word, so switch it off only if your region is configured without repeater_compatible.
# repeater = true

[inventory]
# Facts about devices that sower cannot know, or that "sower devices discover" or "sower devices --listen 1h --csv > FILE" has gathered.
# csv = ""
# Tags of devices in ChirpStack that hold a firmware version (1.2.3) and a hardware id (a number).
# version_tag = "firmware_version"
# hardware_tag = "hardware_id"

# A rule that finds a fact in ordinary uplinks. fact is "version" (4 bytes as TS006 reports it) or "battery"
# (1 byte, percent); offset counts bytes from 0.
# [[inventory.uplink]]
# f_port = 2
# fact = "version"
# offset = 0
# order = "little"

[server]
# sower serve. The database holds campaigns, log, audit and digests of API tokens; beside it lie state.key, which
# opens the multicast keys in it, and evidence.key, which signs evidence. Keep copies of both apart from backups.
# database = "sower.db"
# Addresses that others can reach need a certificate: API tokens must not travel in clear text.
# listen = "127.0.0.1:7060"
# tls_cert = ""
# tls_key = ""
# Folder in which "sower backup" may write; none.
# backup_dir = ""
# Days after the end of a campaign for which its log is kept: what was sent, heard and decided, some hundred bytes each.
# 0: for ever. The campaign, the outcome of each device and the audit log are never removed; the audit log tells how many
# entries a log had and their digest, with which evidence that was exported before can be compared.
# keep_log_days = 0
# Let this machine read /metrics without a token.
# metrics_without_token = true
# Address that is told of halts, missing approvals and ends of campaigns, and the secret that signs what it gets.
# webhook = ""
# webhook_secret_file = ""
# webhook_secret_env = ""

# What devices of one hardware id can hold, from the flash map of their firmware. With it, plan refuses what does
# not fit.
# [[hardware]]
# id = 1
# class = 0x1001
# slot_bytes = 65536
# download_bytes = 49152
# scratch_bytes = 16384
# ram_bytes = 16384
# page_bytes = 2048
# granule_bytes = 8
`

// CampaignTemplate returns a campaign file for an application in which every default stands in a comment.
func CampaignTemplate(name, application, applicationName string, bundles []Bundle) string {
	var b strings.Builder
	for _, x := range bundles {
		fmt.Fprintf(&b, "[[bundle]]\nfile = %q\n", x.File)
		if x.BaseImage != "" {
			fmt.Fprintf(&b, "base_image = %q\n", x.BaseImage)
		}
		b.WriteString("\n")
	}
	if len(bundles) == 0 {
		b.WriteString("[[bundle]]\nfile = \"update.sow\"\n# base_image = \"old.bin\"\n\n")
	}
	comment := strings.Map(func(r rune) rune {
		if r < ' ' {
			return -1
		}
		return r
	}, applicationName)
	return fmt.Sprintf(campaignText, name, name, application, comment, b.String())
}

const campaignText = `# Campaign %s. A line that is commented out shows the default.
# See what it will cost, and whether it can work, with:  sower plan THIS_FILE

# Also names the multicast group on the server.
name = %q
# %[4]s
application = %[3]q
# When to begin; now.
# start = 2027-01-31T22:00:00Z
# Share of the devices of a session that the first burst of parity is to complete. The rest is topped up.
# target_percent = 99

# Bundles made by "sower sign". Each device gets the one that costs least air and suits what it runs: a patch only
# if the device is known to run its base, the full image otherwise. A patch says what it is against: by the image
# itself, whose digest is compared, or by its versions, which are believed.
%[5]s# [[bundle]]
# file = "full.sow"
# base_versions = []
# For devices without the device library (LoRaMac-node, LoRa Basics Modem, Zephyr): any file, alone in its campaign. What
# they do with it is their affair, and so is any signature in it. See [proof] and [raw].
# [[bundle]]
# raw = "file.bin"
# version = "1.2.0"

[devices]
# All devices of the application, unless a line says otherwise. Conditions add up.
# tags = { site = "north" }
# list = []
# versions = []
# hardware = []
# exclude = []

# Waves follow one another. Each takes from the devices that are left, by percent of all (counted up to and with
# this wave) or by count, or all that meet its conditions (tags, list, versions, hardware). Without any: one wave.
[[wave]]
name = "canary"
percent = 5
# How long to wait after this wave before the next one begins.
# soak = "0s"

[[wave]]
name = "all"
percent = 100
# Wait before this wave until somebody approves it: sower campaign approve.
# gate = false

# A last wave for stragglers: devices of the waves before that were given up for a cause that another session may
# mend, such as LOSS_EXCEEDED, at another data rate (default: chosen as for the others).
# [[wave]]
# name = "rescue"
# rescue = true
# data_rate = 0

[policy]
# Approvals of different people that the campaign needs before it may start.
# approvals = 0
# An approval by whoever created the campaign does not count.
# four_eyes = true
# When a wave stops the campaign. Judged in each cohort (devices of one hardware id that came from one version), which
# then stops alone, and in the wave as a whole; while the wave runs as soon as min_samples devices have come far
# enough to tell, and at its end. A [[wave]] may have numbers of its own.
# Least share of devices updated at the end of the wave, of those that were reached; 0: any.
# min_success_percent = 90
# Most that fail to verify, patch, boot or confirm.
# max_failure_percent = 10
# Most that are not heard again after they had the block or were told to reboot.
# max_silence_percent = 5
# min_samples = 10

[radio]
# "C": devices listen all the time while fragments are sent. "B": only in their ping slots, which takes far less energy
# and seldom more time, but needs gateways that send beacons (with GPS) and devices that can do it; "sower plan" compares.
# class = "C"
# Of class B: 0 (128 ping slots in each beacon period of 128 s) to 7 (one slot), half as many with each step, or "auto": as
# few as do not slow the campaign down.
# ping_slot_periodicity = "auto"
# Index of the downlink data rate, or "auto": from the link history of each device.
# data_rate = "auto"
# Bytes of the block in each fragment; 0: chosen, so that the code has no holes.
# fragment_bytes = 0
# Frequency of the multicast channel in Hz; 0: that of the second receive window, in class B that of the ping slots.
# frequency_hz = 0
# Gateways that transmit; all that are online. In class C one after the other sends each fragment, so fewer are faster.
# gateways = []
# Version of TS003, TS004 and TS005 of devices that have not told theirs: "v1" or "v2".
# packages = "v2"
# Descriptor of the fragmentation session, on which some devices insist: 8 hexadecimal digits.
# descriptor = "00000000"

[timing]
# Longest usual time between two uplinks of a device. Everything that is asked of a device waits for one.
# uplink_interval = "1h"
# A device that is not heard for so long counts as lost; 12 uplink intervals.
# silence = "12h"
# How long a device may put the update off, for its user or for its battery.
# defer = "168h"

[energy]
# Current of the receiver and of the transmitter of a device, for the estimate of mAh.
# receive_ma = 6.0
# transmit_ma = 45.0
# A device that is known to have less in its battery is not told to reboot until it has more, or "defer" is over.
# min_battery_percent = 0

[maintenance]
# When the campaign may send; always. Local time is that of utc_offset all year: summer time does not exist here.
# utc_offset = "1h"
# A window begins on each of its days (every day, if none is named) and may end on the next one.
# [[maintenance.window]]
# days = ["sat", "sun"]
# from = "22:00"
# to = "05:00"

[repair]
# Most fragments that a session sends in all, data and parity: a device that would need more is not worth the air and
# is left behind. 0: no limit but most_per_device.
# most_fragments = 0
# Most parity that one device is worth in one round, in fragments; 0: half as many as the block has, and 20 more.
# most_per_device = 0
# Receive windows, one after the other, as long as somebody misses something.
# windows = 5
# Most fragments that one device gets by single messages afterwards; 0: none.
# unicast_fragments = 8

[proof]
# A device counts as updated when it has reported the new version and was heard so often since, without a reset.
# uplinks = 1
# So many resets with the new version, and it has failed.
# resets = 3
# Of a raw block: what proves that a device is updated. "block": nothing does, and a device that holds the block ends as
# unproven. "version": TS006 reports the version of the [[bundle]]; such devices are told to reboot. "uplink": an uplink
# on f_port whose payload has these bytes, hexadecimal, at that offset. "tag": somebody sets this tag, "NAME=VALUE", on the
# device in the network server once it holds the block.
# by = "block"
# f_port = 2
# offset = 0
# bytes = "010200"
# tag = "firmware=1.2.0"

# Of a raw block: what the decoder of the devices was built for; 0: no limit. A plan beyond it is refused. LoRaMac-node
# has 21 fragments of 50 bytes and 5 (FRAG_MAX_NB, FRAG_MAX_SIZE, FRAG_MAX_REDUNDANCY) unless it was built otherwise, LoRa
# Basics Modem 100 of 242.
[raw]
# max_fragments = 0
# max_fragment_bytes = 0
# The most data fragments that a device may lose, not how much parity is sent: one that loses more cannot complete.
# max_redundancy = 0
`
