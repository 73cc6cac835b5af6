package org.deixis.backend.cuda;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.AtomicMoveNotSupportedException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.Arrays;
import java.util.HexFormat;
import org.deixis.core.Env;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/** What is kept between runs: {@code DEIXIS_CACHE}, by default {@code ~/.cache/deixis}. */
final class DiskCache {
  private static final Logger LOG = LoggerFactory.getLogger(DiskCache.class);

  private DiskCache() {}

  static Path folder() {
    return Path.of(
        Env.get("CACHE", Path.of(System.getProperty("user.home"), ".cache", "deixis").toString()));
  }

  /** 32 hexadecimal digits for a file's name. */
  static String hash(String... parts) {
    MessageDigest sha = sha();
    for (String part : parts) {
      sha.update(part.getBytes(StandardCharsets.UTF_8));
      sha.update((byte) 0);
    }
    return HexFormat.of().formatHex(sha.digest(), 0, 16);
  }

  private static MessageDigest sha() {
    try {
      return MessageDigest.getInstance("SHA-256");
    } catch (NoSuchAlgorithmException e) {
      throw new IllegalStateException(e);
    }
  }

  /** {@link #keep}, behind a digest by which {@link #sealed} knows a damaged file. */
  static void seal(Path file, byte[] content) {
    byte[] digest = sha().digest(content);
    byte[] whole = Arrays.copyOf(digest, digest.length + content.length);
    System.arraycopy(content, 0, whole, digest.length, content.length);
    keep(file, whole);
  }

  /** What {@link #seal} wrote, or null where there is no such file; a damaged one is warned of. */
  static byte[] sealed(Path file) {
    if (!Files.isRegularFile(file)) {
      return null;
    }
    try {
      byte[] whole = Files.readAllBytes(file);
      int length = sha().getDigestLength();
      if (whole.length > length) {
        byte[] content = Arrays.copyOfRange(whole, length, whole.length);
        if (Arrays.equals(sha().digest(content), Arrays.copyOf(whole, length))) {
          return content;
        }
      }
      LOG.warn("{} is damaged, and made anew", file);
    } catch (IOException e) {
      LOG.warn("{} cannot be read, and is made anew: {}", file, e.toString());
    }
    return null;
  }

  /**
   * Writes a file whole or not at all, and makes its folder. A cache that cannot be written costs
   * time at the next start, and nothing else: it warns.
   */
  static void keep(Path file, byte[] content) {
    try {
      Files.createDirectories(file.getParent());
      Path fresh = Files.createTempFile(file.getParent(), "writing", null);
      try {
        Files.write(fresh, content);
        try {
          Files.move(fresh, file, StandardCopyOption.ATOMIC_MOVE);
        } catch (AtomicMoveNotSupportedException e) {
          Files.move(fresh, file, StandardCopyOption.REPLACE_EXISTING);
        }
      } finally {
        Files.deleteIfExists(fresh); // a disk that is full leaves half of one
      }
    } catch (IOException e) {
      LOG.warn("{} cannot be kept for the next start: {}", file, e.toString());
    }
  }
}
