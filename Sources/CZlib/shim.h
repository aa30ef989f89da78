#include <zlib.h>

/* deflateInit and inflateInit are macros, which Swift does not import. */
static inline int ashlar_deflate_init(z_streamp stream, int level) {
    return deflateInit(stream, level);
}
static inline int ashlar_inflate_init(z_streamp stream) {
    return inflateInit(stream);
}
