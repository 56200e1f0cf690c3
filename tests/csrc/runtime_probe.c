/* What ctypes cannot ask a library: the size of its structs. */
#include "starlight_runtime.h"

size_t probe_model_bytes(void);

size_t probe_model_bytes(void)
{
    return sizeof(sl_model);
}
