// OpenSSL for the files of this folder: owning pointers and errors. Not for other folders.
#pragma once

#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include <memory>
#include <string>

#include "base/bytes.h"
#include "base/error.h"

namespace farshore {

template <auto function>
struct OpenSslFree {
    template <typename T>
    void operator()(T* object) const {
        function(object);
    }
};
using X509Ptr = std::unique_ptr<X509, OpenSslFree<X509_free>>;
using X509ReqPtr = std::unique_ptr<X509_REQ, OpenSslFree<X509_REQ_free>>;
using EvpKeyPtr = std::unique_ptr<EVP_PKEY, OpenSslFree<EVP_PKEY_free>>;
using BioPtr = std::unique_ptr<BIO, OpenSslFree<BIO_free_all>>;
using SslCtxPtr = std::unique_ptr<SSL_CTX, OpenSslFree<SSL_CTX_free>>;
using SslPtr = std::unique_ptr<SSL, OpenSslFree<SSL_free>>;

// The reasons in OpenSSL's queue of this thread, oldest first; empties it.
std::string drain_openssl_errors();
// An error with those reasons.
Error openssl_error(Code code, std::string what,
                    std::source_location where = std::source_location::current());

// A view as a BIO to read from. The view outlives it.
BioPtr bio_of(ByteView bytes);
Result<X509Ptr> parse_certificate(std::string_view pem);
Result<EvpKeyPtr> parse_private_key(ByteView pem);
// The one common name; kMalformed when there is none, more than one, or one with a zero in it.
Result<std::string> common_name_of(const X509_NAME* name);

}  // namespace farshore
