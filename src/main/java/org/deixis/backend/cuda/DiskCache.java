package org.deixis.backend.cuda;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.AtomicMoveNotSupportedException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
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
    try {
      MessageDigest sha = MessageDigest.getInstance("SHA-256");
      for (String part : parts) {
        sha.update(part.getBytes(StandardCharsets.UTF_8));
        sha.update((byte) 0);
      }
      return HexFormat.of().formatHex(sha.digest(), 0, 16);
    } catch (NoSuchAlgorithmException e) {
      throw new IllegalStateException(e);
    }
  }

  /**
   * Writes a file whole or not at all, and makes its folder. A cache that cannot be written costs
   * time at the next start, and nothing else: it warns.
   */
  static void keep(Path file, byte[] content) {
    try {
      Files.createDirectories(file.getParent());
      Path fresh = Files.createTempFile(file.getParent(), "writing", null);
      Files.write(fresh, content);
      try {
        Files.move(fresh, file, StandardCopyOption.ATOMIC_MOVE);
      } catch (AtomicMoveNotSupportedException e) {
        Files.move(fresh, file, StandardCopyOption.REPLACE_EXISTING);
      }
    } catch (IOException e) {
      LOG.warn("{} cannot be kept for the next start: {}", file, e.toString());
    }
  }
}
