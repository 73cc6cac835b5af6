package org.deixis.model.bert;

import java.util.Arrays;
import java.util.List;

/**
 * A batch of token sequences on the host, padded to one length.
 *
 * @param ids (batch, length), row-major; not copied
 * @param mask (batch, length): 1 token, 0 padding; not copied
 */
public record Tokens(int[] ids, int[] mask, int batch, int length) {
  public Tokens {
    if (ids.length != Math.multiplyExact(batch, length) || mask.length != ids.length) {
      throw new IllegalArgumentException(
          "%d ids and %d mask values for %d × %d tokens"
              .formatted(ids.length, mask.length, batch, length));
    }
  }

  /** The sequences, each filled up with {@code padId} to the longest one's length. */
  public static Tokens pad(List<int[]> sequences, int padId) {
    return pad(sequences, padId, 0);
  }

  /** As {@link #pad(List, int)}, to at least {@code length}: for steps that are replayed. */
  public static Tokens pad(List<int[]> sequences, int padId, int length) {
    int longest = length;
    for (int[] s : sequences) {
      longest = Math.max(longest, s.length);
    }
    int[] ids = new int[Math.multiplyExact(sequences.size(), longest)];
    int[] mask = new int[ids.length];
    Arrays.fill(ids, padId);
    for (int i = 0; i < sequences.size(); i++) {
      int[] s = sequences.get(i);
      System.arraycopy(s, 0, ids, i * longest, s.length);
      Arrays.fill(mask, i * longest, i * longest + s.length, 1);
    }
    return new Tokens(ids, mask, sequences.size(), longest);
  }
}
