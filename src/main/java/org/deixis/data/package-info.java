/**
 * Pictures, phrases and masks, as plain Java arrays: annotation formats, image reading, text,
 * augmentation, drawn scenes and the prefetching loader. Nothing here knows of tensors or models.
 */
package org.deixis.data;
