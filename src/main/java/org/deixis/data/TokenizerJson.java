package org.deixis.data;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.nio.charset.StandardCharsets;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.deixis.core.InputException;

/** Writes the content of {@code tokenizer.json} files (format: huggingface/tokenizers). */
final class TokenizerJson {
  private static final ObjectMapper MAPPER = new ObjectMapper();
  private static final String PAD = "[PAD]";
  private static final String UNK = "[UNK]";
  private static final String CLS = "[CLS]";
  private static final String SEP = "[SEP]";
  private static final String MASK = "[MASK]";

  private TokenizerJson() {}

  /** BERT's tokenizer of a {@code vocab.txt}: one token a line, its number the id. */
  static byte[] ofBertVocabulary(byte[] vocabTxt, String name) {
    Map<String, Integer> vocab = new LinkedHashMap<>();
    boolean cased = false;
    String[] lines = new String(vocabTxt, StandardCharsets.UTF_8).split("\n", -1);
    int n = lines[lines.length - 1].isEmpty() ? lines.length - 1 : lines.length;
    for (int i = 0; i < n; i++) {
      String token =
          lines[i].endsWith("\r") ? lines[i].substring(0, lines[i].length() - 1) : lines[i];
      if (vocab.putIfAbsent(token, i) != null) {
        throw new InputException(
            "%s: line %d: token '%s' occurs twice".formatted(name, i + 1, token));
      }
      boolean bracketed = token.startsWith("[") && token.endsWith("]");
      cased |= !bracketed && token.chars().anyMatch(Character::isUpperCase);
    }
    for (String needed : List.of(PAD, UNK, CLS, SEP)) {
      if (!vocab.containsKey(needed)) {
        throw new InputException(name + ": not a BERT vocabulary: it lacks " + needed);
      }
    }
    ObjectNode model = MAPPER.createObjectNode();
    model.put("type", "WordPiece").put("unk_token", UNK);
    model.put("continuing_subword_prefix", "##").put("max_input_chars_per_word", 100);
    return build(vocab, model, !cased);
  }

  /** A tokenizer of whole words: the special tokens first, then {@code words}, lower-cased. */
  static byte[] ofWords(List<String> words) {
    Map<String, Integer> vocab = new LinkedHashMap<>();
    for (String special : List.of(PAD, UNK, CLS, SEP)) {
      vocab.put(special, vocab.size());
    }
    for (String word : words) {
      vocab.putIfAbsent(word, vocab.size());
    }
    return build(
        vocab, MAPPER.createObjectNode().put("type", "WordLevel").put("unk_token", UNK), true);
  }

  private static byte[] build(Map<String, Integer> vocab, ObjectNode model, boolean lowercase) {
    ObjectNode root = MAPPER.createObjectNode();
    root.put("version", "1.0").putNull("truncation").putNull("padding");
    ArrayNode added = root.putArray("added_tokens");
    for (String special : List.of(PAD, UNK, CLS, SEP, MASK)) {
      if (vocab.containsKey(special)) {
        ObjectNode token = added.addObject();
        token.put("id", vocab.get(special)).put("content", special);
        token.put("single_word", false).put("lstrip", false).put("rstrip", false);
        token.put("normalized", false).put("special", true);
      }
    }
    ObjectNode normalizer = root.putObject("normalizer");
    normalizer.put("type", "BertNormalizer").put("clean_text", true);
    normalizer.put("handle_chinese_chars", true).putNull("strip_accents");
    normalizer.put("lowercase", lowercase);
    root.putObject("pre_tokenizer").put("type", "BertPreTokenizer");
    ObjectNode processor = root.putObject("post_processor").put("type", "TemplateProcessing");
    ArrayNode single = processor.putArray("single");
    template(single, "SpecialToken", CLS, 0);
    template(single, "Sequence", "A", 0);
    template(single, "SpecialToken", SEP, 0);
    ArrayNode pair = processor.putArray("pair");
    template(pair, "SpecialToken", CLS, 0);
    template(pair, "Sequence", "A", 0);
    template(pair, "SpecialToken", SEP, 0);
    template(pair, "Sequence", "B", 1);
    template(pair, "SpecialToken", SEP, 1);
    ObjectNode specials = processor.putObject("special_tokens");
    for (String special : List.of(CLS, SEP)) {
      ObjectNode token = specials.putObject(special).put("id", special);
      token.putArray("ids").add(vocab.get(special));
      token.putArray("tokens").add(special);
    }
    ObjectNode decoder = root.putObject("decoder");
    decoder.put("type", "WordPiece").put("prefix", "##").put("cleanup", true);
    ObjectNode words = MAPPER.createObjectNode();
    vocab.forEach(words::put);
    root.set("model", model.set("vocab", words));
    try {
      return MAPPER.writerWithDefaultPrettyPrinter().writeValueAsBytes(root);
    } catch (JsonProcessingException e) {
      throw new IllegalStateException(e);
    }
  }

  private static void template(ArrayNode list, String kind, String id, int type) {
    list.addObject().putObject(kind).put("id", id).put("type_id", type);
  }
}
