#include "vault/replays.h"

#include <fmt/core.h>

#include <algorithm>

#include "codec/envelope.h"
#include "codec/hash.h"
#include "meta/json_fields.h"
#include "meta/kept_answers.h"
#include "os/log.h"
#include "vault/vault.h"

namespace farshore {
namespace {

std::string new_run(Random& random) {
    uint8_t raw[16];
    random.fill(raw);
    return to_hex(raw);
}

// Sessions of one user are the same caller: who logs in again can still repeat what he sent. A
// token may have fewer rights than its owner's others.
std::string identity_of(const Identity& who) {
    return fmt::format("{}:{}", who.kind == IdentityKind::kToken ? "token " + who.token_id : "user",
                       who.name);
}

std::string associated(const std::string& identity, const std::string& key) {
    return identity + '\n' + key;
}

// With these nothing was done.
bool may_go_otherwise(const HttpResponse& response, const std::optional<Error>& error) {
    const int status = response.status;
    return status == 401 || status == 403 || status == 409 || status == 412 || status == 429 ||
           (error && error->retry() != Retry::kNever);
}

}  // namespace

Replays::Replays(Vault& vault) : vault_(vault), run_(new_run(vault.random())) {}

Secret Replays::derive(const char* purpose) const {
    return Secret(hmac_sha256(vault_.admin_token().reveal(), as_bytes(std::string(purpose))));
}

Result<std::optional<HttpResponse>> Replays::begin(const Identity& who,
                                                   const HttpRequest& request) {
    KeptAnswer asked;
    asked.identity = identity_of(who);
    asked.key = request.header("idempotency-key");
    const bool good = !asked.key.empty() && asked.key.size() <= kMaxRequestKeyBytes &&
                      std::ranges::all_of(asked.key, [](char c) { return c > 0x20 && c < 0x7f; });
    if (!good)
        return fail(Code::kInvalidArgument,
                    fmt::format("Idempotency-Key must be 1 to {} visible ASCII characters",
                                kMaxRequestKeyBytes),
                    "use a fresh random UUID for each thing that is to be done once");
    asked.method = request.method;
    asked.target = request.target;
    asked.fingerprint = to_hex(
        hmac_sha256(derive("farshore: bodies of requests").reveal(), as_bytes(request.body)));
    asked.run = run_;
    FS_ASSIGN(const auto known, begin_answer(vault_.database(), asked));
    if (!known) return std::optional<HttpResponse>();
    if (known->method != asked.method || known->target != asked.target ||
        known->fingerprint != asked.fingerprint)
        return fail(Code::kKeyReused,
                    "this Idempotency-Key was used for another request within the last day",
                    "use a new key for each thing that is to be done");
    if (known->status == 0 && known->run == run_)
        return fail(Code::kInProgress, "the first request with this Idempotency-Key is being done",
                    "ask again with the same key");
    if (known->status == 0)
        return fail(Code::kOutcomeUnknown,
                    "the vault ended while it did the first request with this Idempotency-Key",
                    "look whether it was done; if not, send it with a new key");
    HttpResponse response;
    response.status = static_cast<int>(known->status);
    if (!known->answer.empty()) {
        FS_ASSIGN(const Bytes sealed, from_hex(known->answer));
        FS_ASSIGN(const SealKey key, SealKey::make(derive("farshore: kept answers")));
        if (sealed.size() < kSealNonceBytes + kSealTagBytes)
            return fail(Code::kCorrupt, "a kept answer is too short");
        SealNonce nonce;
        std::copy_n(sealed.begin(), nonce.size(), nonce.begin());
        Bytes plain(sealed.size() - kSealNonceBytes - kSealTagBytes);
        FS_TRY(key.open(nonce, as_bytes(associated(asked.identity, asked.key)),
                        ByteView(sealed).subspan(kSealNonceBytes), plain));
        FS_ASSIGN(const Json json, parse_json(as_text(plain), "a kept answer", plain.size()));
        response.body = json.value("body", "");
        for (const Json& header : json.value("headers", Json::array()))
            if (header.is_array() && header.size() == 2 && header[0].is_string() &&
                header[1].is_string())
                response.headers.emplace_back(header[0].get<std::string>(),
                                              header[1].get<std::string>());
    }
    response.headers.emplace_back(std::string(kReplayedHeader), "true");
    return std::optional<HttpResponse>(std::move(response));
}

void Replays::end(const Identity& who, const HttpRequest& request, const HttpResponse& response,
                  const std::optional<Error>& error) {
    const std::string identity = identity_of(who);
    const std::string& name = request.header("idempotency-key");
    const auto keep = [&]() -> Status {
        if (may_go_otherwise(response, error))
            return forget_answer(vault_.database(), identity, name);
        std::string sealed_text;
        if (response.body.size() <= kMaxKeptAnswerBytes) {
            Json headers = Json::array();
            for (const auto& [header, value] : response.headers) headers.push_back({header, value});
            const std::string plain =
                dump_json({{"headers", std::move(headers)}, {"body", response.body}});
            FS_ASSIGN(const SealKey key, SealKey::make(derive("farshore: kept answers")));
            SealNonce nonce;
            vault_.random().fill(nonce);
            Bytes sealed(nonce.begin(), nonce.end());
            sealed.resize(nonce.size() + plain.size() + kSealTagBytes);
            key.seal(nonce, as_bytes(associated(identity, name)), as_bytes(plain),
                     MutableByteView(sealed).subspan(nonce.size()));
            sealed_text = to_hex(sealed);
        }
        return keep_answer(vault_.database(), identity, name,
                           static_cast<uint32_t>(response.status), sealed_text);
    };
    // It stays "in progress" then: nothing is done twice.
    if (const Status kept = keep(); !kept)
        log::warn("api", "the answer of an idempotent request could not be kept: {}",
                  kept.error().to_string());
}

}  // namespace farshore
