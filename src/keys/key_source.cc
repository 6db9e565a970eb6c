#include "keys/key_source.h"

#include <fmt/core.h>

#include <charconv>

#include "codec/envelope.h"
#include "keys/azure_key_vault.h"
#include "keys/key_document.h"
#include "os/real.h"
#include "os/secret_input.h"

namespace farshore {
namespace {

constexpr size_t kMaxKeyTextBytes = 4096;

class FileSource final : public KeySource {
  public:
    FileSource(std::string spec, std::string path, FileSystem& files)
        : spec_(std::move(spec)), path_(std::move(path)), files_(files) {}
    const std::string& spec() const override { return spec_; }
    Result<KeyFile> open(const std::string& wanted_id, ByteView) override {
        FS_ASSIGN(KeyFile key, load_key_file(files_, path_));
        if (!wanted_id.empty() && key.id != wanted_id)
            return fail(Code::kWrongKey,
                        fmt::format("{} is key {}, key {} is wanted", path_, key.id, wanted_id),
                        fmt::format("put the key file with id {} there", wanted_id));
        return key;
    }
    Result<Made> make(Random& random, TimePoint) override {
        FS_ASSIGN(const bool there, files_.exists(path_));
        if (!there) {
            const KeyFile key = make_key_file(random);
            FS_TRY(files_.make_directories(parent_directory(path_)));
            // Whole or not at all: a crash must not leave half a key that is then in the way.
            FS_TRY(write_file_durably(files_, path_, format_key_file(key).reveal()));
            return Made{key, {}};
        }
        FS_ASSIGN(KeyFile key, load_key_file(files_, path_));
        return Made{std::move(key), {}};
    }

  private:
    const std::string spec_, path_;
    FileSystem& files_;
};

// A variable, or systemd's credential: the text of a key file from a secret manager.
class HandedSource final : public KeySource {
  public:
    HandedSource(std::string spec, std::string name, bool credential, FileSystem& files)
        : spec_(std::move(spec)), name_(std::move(name)), credential_(credential), files_(files) {}
    const std::string& spec() const override { return spec_; }
    Result<KeyFile> open(const std::string& wanted_id, ByteView) override {
        FS_ASSIGN(KeyFile key, read());
        if (!wanted_id.empty() && key.id != wanted_id)
            return fail(Code::kWrongKey,
                        fmt::format("{} is key {}, key {} is wanted", spec_, key.id, wanted_id),
                        fmt::format("hand over the key with id {}", wanted_id));
        return key;
    }
    Result<Made> make(Random&, TimePoint) override {
        FS_ASSIGN(KeyFile key, read());
        return Made{std::move(key), {}};
    }

  private:
    Result<KeyFile> read() {
        if (credential_) {
            const std::string directory = plain_variable("CREDENTIALS_DIRECTORY");
            if (directory.empty())
                return fail(Code::kUnavailable, fmt::format("{}: no CREDENTIALS_DIRECTORY", spec_),
                            "set LoadCredential= in the unit that starts this");
            return load_key_file(files_, directory + "/" + name_);
        }
        const Secret text = take_secret_variable(name_);
        if (text.empty())
            return fail(Code::kUnavailable, fmt::format("the variable {} is not set", name_),
                        "let the secret manager put the text of the key file there");
        auto key = parse_key_file(as_text(text.reveal()));
        if (!key) return fail(key.error().with_context(name_));
        return key;
    }
    const std::string spec_, name_;
    const bool credential_;
    FileSystem& files_;
};

class PassphraseSource final : public KeySource {
  public:
    PassphraseSource(std::string spec, std::string path, Secret passphrase, FileSystem& files,
                     const KdfCost& cost)
        : spec_(std::move(spec)),
          path_(std::move(path)),
          passphrase_(std::move(passphrase)),
          files_(files),
          cost_(cost) {}
    const std::string& spec() const override { return spec_; }
    bool keeps_document() const override { return true; }
    Result<KeyFile> open(const std::string& wanted_id, ByteView document) override {
        if (document.empty())
            return fail(Code::kWrongKey,
                        fmt::format("the store keeps no key {} under a passphrase", wanted_id),
                        "name the source that this store's key comes from");
        FS_ASSIGN(const KeyDocument sealed, decode_key_document(document));
        FS_ASSIGN(const Secret passphrase, read());
        return open_with_passphrase(sealed, passphrase);
    }
    Result<Made> make(Random& random, TimePoint now) override {
        FS_ASSIGN(const Secret passphrase, read());
        KeyFile key = make_key_file(random);
        FS_ASSIGN(const KeyDocument document,
                  seal_under_passphrase(key, passphrase, cost_, now, random));
        return Made{std::move(key), encode_key_document(document)};
    }

  private:
    Result<Secret> read() {
        if (path_.empty()) return passphrase_;
        auto raw = read_whole_file(files_, path_, 2 * kMaxPassphraseBytes);
        if (!raw)
            return fail(Error(raw.error().code(),
                              fmt::format("passphrase file {}: {}", path_, raw.error().what()),
                              "put the passphrase there, with rights for this user only"));
        Secret passphrase = trim_passphrase(*raw);
        std::fill(raw->begin(), raw->end(), uint8_t{0});
        return passphrase;
    }
    const std::string spec_, path_;
    const Secret passphrase_;
    FileSystem& files_;
    const KdfCost cost_;
};

class AzureSource final : public KeySource {
  public:
    AzureSource(std::string spec, AzureKeyVaultSettings settings, FileSystem& files)
        : spec_(std::move(spec)), vault_(std::move(settings), files) {}
    const std::string& spec() const override { return spec_; }
    bool keeps_document() const override { return true; }
    bool is_remote() const override { return true; }
    Result<KeyFile> open(const std::string& wanted_id, ByteView document) override {
        if (document.empty())
            return fail(Code::kWrongKey,
                        fmt::format("the store keeps no key {} sealed by a key vault", wanted_id),
                        "name the source that this store's key comes from");
        FS_ASSIGN(const KeyDocument sealed, decode_key_document(document));
        if (sealed.sealing != KeySealing::kAzureKeyVault)
            return fail(Code::kWrongKey,
                        fmt::format("key {} is sealed under a passphrase, not by a key vault",
                                    sealed.key_id),
                        "name the source that this store's key comes from");
        FS_ASSIGN(Secret raw, vault_.unwrap(sealed.remote_key, sealed.sealed));
        if (raw.reveal().size() != kKeyBytes || key_id(raw) != sealed.key_id)
            return fail(Code::kCorrupt, fmt::format("what {} unwrapped is not key {}",
                                                    sealed.remote_key, sealed.key_id));
        return KeyFile{sealed.key_id, std::move(raw)};
    }
    Result<Made> make(Random& random, TimePoint now) override {
        KeyFile key = make_key_file(random);
        KeyDocument document;
        document.sealing = KeySealing::kAzureKeyVault;
        document.key_id = key.id;
        document.created = now;
        document.remote_key = vault_.key_url();
        FS_ASSIGN(document.sealed, vault_.wrap(key.key));
        // Read back before anything depends on it: wrapKey alone may be permitted.
        FS_ASSIGN(const Secret back, vault_.unwrap(document.remote_key, document.sealed));
        if (!std::ranges::equal(back.reveal(), key.key.reveal()))
            return fail(Code::kCorrupt, "the key vault unwraps something else than it wrapped");
        return Made{std::move(key), encode_key_document(document)};
    }

  private:
    const std::string spec_;
    AzureKeyVault vault_;
};

bool is_variable(const std::string& name) {
    return name.starts_with("FARSHORE_KEY") &&
           name.find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") == std::string::npos;
}

}  // namespace

std::string_view key_source_kind(std::string_view spec) { return spec.substr(0, spec.find(':')); }

std::string key_source_path(const std::string& spec) {
    return key_source_kind(spec) == "file" && spec.size() > 5 ? spec.substr(5) : std::string();
}

Result<std::unique_ptr<KeySource>> make_key_source(const std::string& spec, FileSystem& files,
                                                   const KdfCost& cost) {
    const std::string_view kind = key_source_kind(spec);
    const size_t colon = spec.find(':');
    const std::string rest = colon == std::string::npos ? std::string() : spec.substr(colon + 1);
    if (kind == "file" && !rest.empty()) return std::make_unique<FileSource>(spec, rest, files);
    if (kind == "passphrase" && !rest.empty())
        return std::make_unique<PassphraseSource>(spec, rest, Secret(), files, cost);
    if (kind == "passphrase-fd") {
        int descriptor = -1;
        const auto [end, error] =
            std::from_chars(rest.data(), rest.data() + rest.size(), descriptor);
        if (error == std::errc() && end == rest.data() + rest.size()) {
            FS_ASSIGN(const Secret text, read_secret_descriptor(descriptor));
            return std::make_unique<PassphraseSource>(spec, "", trim_passphrase(text.reveal()),
                                                      files, cost);
        }
    }
    if (kind == "passphrase-prompt" && rest.empty()) {
        FS_ASSIGN(Secret text, ask_secret("Passphrase of the store's key: "));
        return std::make_unique<PassphraseSource>(spec, "", std::move(text), files, cost);
    }
    if (kind == "env" && is_variable(rest.empty() ? "FARSHORE_KEY" : rest))
        return std::make_unique<HandedSource>(spec, rest.empty() ? "FARSHORE_KEY" : rest, false,
                                              files);
    if (kind == "credential" && !rest.empty() && rest.find('/') == std::string::npos)
        return std::make_unique<HandedSource>(spec, rest, true, files);
    if (kind == "azure" && !rest.empty()) {
        FS_ASSIGN(const Bytes text, read_whole_file(files, rest, 64u << 10));
        auto settings = parse_azure_settings(as_text(text));
        if (!settings) return fail(settings.error().with_context(rest));
        return std::make_unique<AzureSource>(spec, std::move(*settings), files);
    }
    return fail(
        Code::kInvalidArgument, fmt::format("'{}' is no source of a key", spec.substr(0, 100)),
        "file:PATH, passphrase:FILE, passphrase-fd:N, passphrase-prompt, env[:FARSHORE_KEY…], "
        "credential:NAME or azure:SETTINGS");
}

}  // namespace farshore
