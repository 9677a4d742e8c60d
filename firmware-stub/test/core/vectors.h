/* SHA-256 over all fragments of data[i] = (i * 31 + 7) % 251; version 1 agreed on by brocaar/lorawan and
 * ChirpStack, version 2 by ChirpStack and the SWL2001 decoder. */
static const struct {
    uint8_t version;
    uint16_t m, frag_size, parity;
    const char *sha256;
} vectors[] = {
    {1, 4, 8, 4, "8b6f5c7fa141dd75e4cd7bb3b3cb41f493dd80c001a62f0301fbc74c24216c8f"},
    {2, 4, 8, 4, "8b6f5c7fa141dd75e4cd7bb3b3cb41f493dd80c001a62f0301fbc74c24216c8f"},
    {1, 10, 10, 5, "cb5f8b3457b376c318b09a7fcd8c0116854aaedc23fd515731b9fa7d98546797"},
    {2, 10, 10, 5, "16d0759d3d9e3eacba19fc152f9e5553b88d6c6aaa3015d267b1156a079fdc9b"},
    {1, 15, 20, 10, "5252c444f531550e6dbbb737773cdb1ef9ad733b34da3adbf1b83a832baf8075"},
    {2, 15, 20, 10, "de0e758a3a7b55f4007805cc18093b7deaa8fbbf725f1a1052c1531198d7486c"},
    {1, 16, 20, 10, "b82d2ed8d9b85354af94e8b65cbd284b67fe891beabd40e2b30ca304860c41bd"},
    {2, 16, 20, 10, "854e5a5f7bfb227ffaf7864090d50a30895934caffa5efa33c7d70d49b0777da"},
    {1, 20, 48, 10, "ac7f168a7859d41fad9224e58f03362f6956a7d82b2b1bf95b17177bbf6ca34a"},
    {2, 20, 48, 10, "ef2044aaddb15c3c970aa11939016b89e535ff0adafbd24ac28998e67a705609"},
    {1, 26, 10, 26, "eedef3c25e6cfd21bbce1c8e7cc1ff2b37ec914a7ee45eb92af2d41f64889e94"},
    {2, 26, 10, 26, "dcefcdcf76774610616e3b0e6138fc5cce301b59b167ba845a2c79294e70c00f"},
    {1, 32, 10, 32, "b9be6f2e3b0c7858fa0ccb02254e814c47c78cf3ed019e7d0d955dd90e339df0"},
    {2, 32, 10, 32, "076cb57bc514370217ba4b2335ffdb518946886a412e805a0a93535352289948"},
    {1, 64, 50, 20, "74b1c11528f650090db7a248cced36512480065dfa97988c0a77343c80c892af"},
    {2, 64, 50, 20, "e037210452b943ae660336883244b6885fc6aecd9232faf296f49aca9bb16748"},
    {1, 100, 20, 100, "65e1e810345982f9f8b9a8249e4f78d48f0a61ec2d6628b6ed2a771cac39cd80"},
    {2, 100, 20, 100, "3a80443fdb459728563fcb6c27d4684595d8fe95a653782f57681a2dfefc282a"},
    {1, 128, 48, 30, "cc48c50f5f6ddb60c115fb9a9f0693b84eeb5b617b3dfea6bfc9a79a8a11f217"},
    {2, 128, 48, 30, "3d41bed59e77610b90c0c11799e6b222dd10b791c15689b73b6ded81128ed41a"},
    {1, 200, 115, 40, "7d9b42b2ea3178fe36f8ffc3bbccc2d2a81f36340adf34187f3505f15a417cbb"},
    {2, 200, 115, 40, "09d9b8db8147eff95a44fe7a04bb102ee183805bc2f067de58d3019ebe6a797d"},
    {1, 300, 222, 60, "decf2512f9967d392ab91052b8fe760b72a2e42936292fe3b838b2d60adeb4a0"},
    {2, 300, 222, 60, "fd283391ce30af7e28b1a18d6153e434cfa93c11a7cd5c7517a0d4c8ad63cb07"},
    {1, 512, 50, 52, "a5f7c4bd87694477fcc98984ea73725b3b69c213ec7494ca027b0a0fd095880d"},
    {2, 512, 50, 52, "58c125c350a1aebd151ef3a4b2480780c80fe0c5b5126c1147d7fd345ce1c364"},
    {1, 1000, 50, 100, "56779ba3ec52fdb2cce94a627116cdd643cecb4b2e090939f5fb0101b318d444"},
    {2, 1000, 50, 100, "5cb25508b0e3e3b775e9b22c1ff8ca2a7424c0e17baab2017a81d620581f092f"},
    {1, 1024, 32, 64, "0c875fe92d30e620e804d4a1b351b52e538bb9ade3c94da86d8ae29476fee289"},
    {2, 1024, 32, 64, "8addd6730126c775822d14b1309153fd35c83d730396ffc87f436d8ab647e63a"},
};

/* A P-256 key made for this test, and its signature over the manifest in real_signature(). */
#define PUB \
    0x78, 0x37, 0x59, 0xc1, 0x80, 0x28, 0x29, 0xbc, 0xe8, 0x33, 0x5c, 0x6a, 0x27, 0x92, 0xf3, 0x01, \
    0x43, 0x5f, 0x6d, 0x41, 0x0c, 0x09, 0xec, 0x8b, 0x38, 0xe3, 0x9b, 0xe5, 0xd9, 0x68, 0x48, 0xbc, \
    0xf2, 0x10, 0x0c, 0x57, 0x55, 0x65, 0xa2, 0xf1, 0xb1, 0xb7, 0x4c, 0xe9, 0x31, 0xac, 0xa3, 0x9d, \
    0xd3, 0x1a, 0xd2, 0x1a, 0x93, 0x1a, 0xe6, 0x83, 0x6d, 0xdf, 0xaf, 0xad, 0x59, 0x43, 0xd3, 0x47
#define SIG \
    0x64, 0xae, 0x2c, 0x0e, 0xa0, 0xb5, 0x90, 0xe1, 0x88, 0xd9, 0xf6, 0xfe, 0xb0, 0x87, 0x70, 0xd2, \
    0x04, 0x1d, 0xf4, 0xb8, 0xc5, 0xbd, 0x7c, 0x26, 0xd2, 0xfb, 0x9d, 0xac, 0x2c, 0x78, 0x81, 0x7c, \
    0x1e, 0x95, 0xeb, 0x3b, 0x2c, 0x7c, 0x45, 0x4c, 0x3b, 0x6d, 0xcb, 0x4b, 0xac, 0xde, 0x83, 0x07, \
    0x0d, 0xa3, 0x9d, 0xf9, 0xe4, 0x9f, 0x9c, 0xb5, 0x9f, 0x67, 0x4b, 0xef, 0x49, 0xaf, 0xce, 0xfe
