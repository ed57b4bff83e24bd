/* SPDX-License-Identifier: Apache-2.0 */
/* A canvas as a PNG, by libpng, where the build has it. See canvas.h. */
#include "canvas.h"
#include "complain.h"

#if QKV_PNG

#include <png.h>
#include <stdlib.h>
#include <string.h>

#include "file.h"

const int canvas_has_png = 1;

int canvas_save_png(const struct canvas *canvas, const char *path) {
    png_image image;
    memset(&image, 0, sizeof image);
    image.version = PNG_IMAGE_VERSION;
    image.width = (png_uint_32)canvas->width;
    image.height = (png_uint_32)canvas->height;
    image.format = PNG_FORMAT_RGB;
    png_alloc_size_t size = PNG_IMAGE_PNG_SIZE_MAX(image);
    void *bytes = malloc(size);
    int status = bytes ? FINE : out_of_memory(path);
    if (!status && !png_image_write_to_memory(&image, bytes, &size, 0, canvas->pixels, 0, NULL)) {
        status = complain(FAILED, path, "libpng says: %s", image.message);
    }
    struct staged staged;
    if (!status && !(status = file_stage(&staged, path, bytes, size, NULL, 0))) {
        status = file_commit(&staged);
    }
    free(bytes);
    return status;
}

#else

const int canvas_has_png = 0;

int canvas_save_png(const struct canvas *canvas, const char *path) {
    (void)canvas;
    return complain(FAILED, path, "this build has no libpng");
}

#endif
